"""Turns folders of photographs into a prepared dataset: python -m fundusgan_jax.data.prepare."""
