"""FundusGAN and its StyleGAN2 generator for retinal photographs, in JAX and Flax."""

__version__ = "0.1.0"
