"""Detectors: each looks for one kind of fault in a token log."""
