"""Networks as flax.linen modules; no training code."""
