"""Vessels of photographs: segmented, scored, measured, compared (command)."""
