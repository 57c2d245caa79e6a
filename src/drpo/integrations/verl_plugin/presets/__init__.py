"""Hydra presets for verl: ``hydra.searchpath=[pkg://drpo.integrations.verl_presets] +drpo=rollout_anchored``."""
