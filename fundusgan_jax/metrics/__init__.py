"""Figures of merit: pure functions of image arrays."""
