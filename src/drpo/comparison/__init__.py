"""Runs side by side: what they were, how they differ, and where they ended (`drpo compare`)."""
