"""The name of :mod:`drpo.integrations.verl_plugin.presets` in ``hydra.searchpath=[pkg://…]``."""

import sys

from drpo.integrations.verl_plugin import presets

sys.modules[__name__] = presets  # Hydra reads the files beside the module that it finds here
