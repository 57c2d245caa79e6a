"""What makes a study's comparisons worth little, told before anything runs."""

from __future__ import annotations

from drpo.errors import DrpoError
from drpo.lab.plan import Plan
from drpo.lab.statistics import ALPHA, smallest_sign_flip
from drpo.tasks import make_task
from drpo.train.config import TrainConfig
from drpo.train.resume import names_data

#: Held-out problems below which an accuracy is so coarse that most differences are luck.
FEW_PROBLEMS = 32


def doubts(plan: Plan) -> list[str]:
    """A sentence for too few seeds, for each arm that cannot differ from another, and for each setting with few
    held-out problems."""
    found, arms = _few_seeds(plan), dict[tuple[str, str], TrainConfig]()
    for run in plan.evaluated:
        arms.setdefault((run.setting, run.arm), run.config)
    for setting in plan.study.settings:
        configs = {arm: config for (name, arm), config in arms.items() if name == setting}
        names = list(configs)
        same = [
            (one, other)
            for place, one in enumerate(names)
            for other in names[place + 1 :]
            if configs[one].resolved() == configs[other].resolved()
        ]
        found += [
            f"in {setting}, the arms {one} and {other} have the same settings: they cannot differ"
            for one, other in same
        ]
        if configs and (few := _few_problems(next(iter(configs.values())))):
            found.append(f"in {setting}, {few}")
    return found


def _few_seeds(plan: Plan) -> list[str]:
    count = len(plan.study.seeds)
    if not plan.study.hypotheses or smallest_sign_flip(count) <= ALPHA:
        return []
    return [
        f"a comparison in one setting gets no verdict from {count} seed{'s' if count > 1 else ''}, as a sign-flip test "
        f"cannot go below {smallest_sign_flip(count):.2g}; six seeds or more can"
    ]


def _few_problems(config: TrainConfig) -> str:
    """Why the held-out set is too small, in words; empty if it is not."""
    asked = config.evaluation_size(config.steps).examples
    count, why = asked, "eval_examples" if config.eval_final is None else "eval_final"
    if any(names_data(key) for key in config.task.parameters):
        try:
            held_out = make_task(config.task.name, **config.task.parameters).heldout_examples(asked)
        except DrpoError as error:
            return f"the task cannot be made here: {error}"
        count, why = len(held_out), why if len(held_out) == asked else "its data"
    if count >= FEW_PROBLEMS:
        return ""
    return (
        f"accuracy is measured on {count} held-out problem{'s' if count > 1 else ''} ({why}): one problem is "
        f"{1 / max(count, 1):.0%} of it, and smaller differences may be chance; {FEW_PROBLEMS} or more are "
        "better"
    )
