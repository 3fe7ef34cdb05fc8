"""Images from a trained model: --mode=generate."""
