"""Processes, memory, compilation and determinism of the devices that compute."""
