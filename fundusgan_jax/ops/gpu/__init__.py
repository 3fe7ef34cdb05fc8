"""Forms for NVIDIA's GPUs."""
