"""Controlled comparisons over several seeds: what would settle a claim."""
