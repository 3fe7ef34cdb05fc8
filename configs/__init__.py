"""Configurations: default.py has every setting, the others change a few of its lines."""
