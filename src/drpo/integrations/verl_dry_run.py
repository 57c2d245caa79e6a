"""The name of ``python -m drpo.integrations.verl_plugin.dry_run`` in scripts that were written for it."""

import sys

from drpo.integrations.verl_plugin.dry_run import compose_config, main, print_answer, validate

__all__ = ["compose_config", "main", "validate"]

if __name__ == "__main__":
    print_answer(sys.argv[1:])
