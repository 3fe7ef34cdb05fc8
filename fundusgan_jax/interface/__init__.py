"""The public interface: a trained model as a Python object, a dataset as arrays, two sets of images compared.

Every mistake is a UserError of one sentence. Images are uint8 arrays [N, S, S, 3]. `fundusgan_jax` hands these names on.
"""
