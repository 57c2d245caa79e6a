"""The plug-in for verl.

Importing this package neither imports verl nor registers anything, so that `drpo doctor` can see what importing verl
alone does, and say why where it does not work. Configurations name :mod:`drpo.integrations.verl`, which registers.
"""
