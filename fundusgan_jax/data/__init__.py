"""Photographs: finding, preparing, storing and feeding them."""
