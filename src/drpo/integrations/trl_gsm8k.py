"""The name of ``python -m drpo.integrations.trl.gsm8k`` in scripts that were written for it."""

import sys

from drpo.integrations.trl.gsm8k import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
