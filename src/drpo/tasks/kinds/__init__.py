"""Kinds of tasks: a finite set of problems, generated problems, and the sources of each."""
