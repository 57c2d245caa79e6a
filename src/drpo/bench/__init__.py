"""Ours against what people use instead, in one run, side by side: `drpo bench`.

A suite is a module whose ``run(settings, watch)`` yields the rows of one case after another; ``frame`` lets variants
take turns and makes rows of what they took, ``record`` is what a file of results holds.
"""

#: Suite → its module, loaded when it runs.
SUITES = {
    "kernels": "drpo.bench.kernels",
    "support": "drpo.bench.support",
    "sampler": "drpo.bench.sampler",
    "step": "drpo.bench.step",
    "model-step": "drpo.bench.model_step",
    "inspect": "drpo.bench.inspection",
    "curves": "drpo.bench.curves",
}
