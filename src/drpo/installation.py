"""How this package and its extras are installed, for every message that says so."""

#: No package index carries a release: the command runs in a clone.
COMMAND = "pip install -e '.[{extras}]'"


def install(*extras: str) -> str:
    """The command that installs ``extras`` of pyproject.toml, and where it is to be run."""
    return f"{COMMAND.format(extras=','.join(extras))} in a clone of drpo"
