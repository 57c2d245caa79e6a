"""Measurements that take minutes to hours: each writes a record below ``results/``, and no page."""
