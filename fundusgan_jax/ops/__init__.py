"""Array operations that every network stands on."""
