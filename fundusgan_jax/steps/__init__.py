"""The arithmetic of one training step: losses, augmentation, optimiser, phases."""
