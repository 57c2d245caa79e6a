"""Responses token by token, each token colored by what an objective or a policy did to it."""
