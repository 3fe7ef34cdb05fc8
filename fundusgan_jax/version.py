"""The version of the package, which images and studies name too."""

__version__ = "0.1.0"
