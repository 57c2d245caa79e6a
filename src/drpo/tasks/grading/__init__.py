"""Grading responses: in separate processes, and the comparison of answers."""
