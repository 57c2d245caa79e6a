"""Decoding: forward passes that continue a sequence by one token, with a cache."""
