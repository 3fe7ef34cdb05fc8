"""The image Turing test: can readers tell synthetic from real photographs? A study on the web, and its statistics."""
