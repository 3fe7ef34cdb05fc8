"""What a run writes and reopens: checkpoints, manifest, metrics."""
