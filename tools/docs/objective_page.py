"""docs/objectives.md, from the docstrings of the objectives and modifiers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from drpo.objectives import MODIFIERS, OBJECTIVES, Modifier, Objective
from drpo.objectives.documentation import document

HEAD = """# The objectives

*Made from the docstrings by `make docs`; `drpo objectives NAME` says the same, with
ranges, units and deviations.*

r = π/μ is the importance ratio: π is the policy under training, μ the behavior policy. Â is the advantage; sg marks a
constant for the gradient. J is maximized. w is the gradient weight, ∇J = Â r w ∇log π: w = 1 is the plain surrogate,
w = 0 masks the token, and w < 0 is corrective. Pass a name from this table to `drpo.make_objective(name, …)`, or set it
as `objective.name` in a configuration.

An objective is anchored on μ. `anchor="proximal"` uses the proximal policy π_old (`proximal_logprobs`) instead of μ:
the ratio is then π/π_old, which covers only staleness; a modifier corrects the training–inference mismatch π_old/μ.
A modifier that would correct this mismatch a second time, because the ratio is π/μ already, is refused.

`drpo objectives --compare drpo ipo grpo` prints weights, limits, needs and cost side by side, and `--alias` what other
trainers call them.

Objectives and modifiers have registries of their own: `objective.name=icepop` masks by π/μ, and
`objective.modifiers=[icepop]` by π_old/μ.

Status says how each formula is known. *Verified*: it was compared line by line with the text of the paper, or with the
code of its authors or the code that they built on (`repository@commit`, file, function). Papers were read in public
transcriptions. *Secondary*: neither was available, and the formula is that of the document named.

```python
drpo.make_objective("grpo", anchor="proximal", modifiers=[{"name": "tis", "ratio_cap": 2.0}])
```
"""


def table(registry: Mapping[str, type[Objective] | type[Modifier]], column: str) -> str:
    """A Markdown table of ``registry``."""
    rows = [
        f"| {column}, parameters = defaults | what it does | equation | source | status |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in registry.values():
        about = document(kind)
        sections = (about.sections[head] for head in ("Equation", "Source", "Status"))
        cells = (f"`{about.signature}`", about.summary, *sections)
        rows.append("| " + " | ".join(cell(text) for text in cells) + " |")
    return "\n".join(rows)


def cell(text: str) -> str:
    """Safe inside a table, arXiv numbers as links."""
    text = text.replace("|", "\\|")
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def page() -> str:
    """The whole file."""
    kinds = (*OBJECTIVES.values(), *MODIFIERS.values())
    statuses = [document(kind).status for kind in kinds]
    count = f"{statuses.count('verified')} of {len(statuses)} formulas are verified."
    needs = [f"`{kind.name}`: {', '.join(kind.needs)}" for kind in kinds if kind.needs]
    return (
        "\n\n".join(
            [
                HEAD.rstrip(),
                count,
                table(OBJECTIVES, "objective"),
                "## Modifiers",
                "Constant factors on the loss of any objective.",
                table(MODIFIERS, "modifier"),
                "## What needs more than the sampled token",
                "\n".join(f"- {line}" for line in needs),
            ]
        )
        + "\n"
    )
