"""Weights from elsewhere: other projects' files in and out, public weights."""
