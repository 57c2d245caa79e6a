"""Figures for the documentation, drawn with matplotlib."""
