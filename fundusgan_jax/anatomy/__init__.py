"""Finds and measures structures in one photograph: field of view, disc, vessels."""
