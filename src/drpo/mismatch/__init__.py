"""Training–inference mismatch: how far log π and log μ are apart at equal weights, and why."""
