"""Made-up eyes with exact masks and positions."""
