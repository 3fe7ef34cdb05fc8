"""What the images are good for, and what each part of the model does: studies over many runs (commands)."""
