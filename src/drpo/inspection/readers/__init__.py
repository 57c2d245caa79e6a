"""Readers of token logs: formats, columns and masks."""
