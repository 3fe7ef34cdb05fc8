"""What pyproject.toml cannot say: configs/ is installed inside the package, as fundusgan_jax.configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fundusgan_jax", "fundusgan_jax.*"]), "fundusgan_jax.configs"],
    package_dir={"fundusgan_jax.configs": "configs"},
)
