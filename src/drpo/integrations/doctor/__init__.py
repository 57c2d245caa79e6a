"""What `drpo doctor` asks inside a host's environment: the module ``doctor`` of the
host's package, which has a ``probe``."""
