"""The trainer: configuration, the loop, checkpoints, evaluation."""
