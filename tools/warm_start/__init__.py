"""Make an embedded base: a small policy that starts mediocre, so that RL has something to do.

    python -m tools.warm_start dense      # writes bases/dense

A model and a byte-level BPE tokenizer are trained from scratch on worked solutions of a task. A share of the solutions
carries a wrong result, so that the model *can* calculate, but is often wrong when it is sampled at temperature 1.
Held-out examples of the task are never seen.
"""
