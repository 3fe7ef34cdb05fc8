"""Scores a model or two folders: python -m fundusgan_jax.evaluate."""
