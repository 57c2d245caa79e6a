"""What `drpo doctor` asks inside a host's environment: one module per host, each with a ``probe``."""
