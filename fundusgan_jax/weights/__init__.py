"""Other projects' weights in and out: python -m fundusgan_jax.weights."""
