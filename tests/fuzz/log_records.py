"""The records of a generated log: columns as Python lists, before they are written in a format."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

PI = (
    "logprob",
    "logprobs",
    "per_token_logps",
    "log_probs",
    "old_log_probs",
    "trainer_logprobs",
    "prev_logprobs",
    "action_log_probs",
    "old_per_token_logps",
)
MU = (
    "behavior_logprob",
    "behavior_logprobs",
    "sampling_per_token_logps",
    "sampling_logprobs",
    "rollout_log_probs",
    "rollout_logprobs",
    "rollout_per_token_logps",
    "inference_logprobs",
    "generation_logprobs",
)
MASKS = (
    "mask",
    "loss_mask",
    "loss_masks",
    "response_mask",
    "completion_mask",
    "action_mask",
    "token_mask",
    "assistant_mask",
    "tool_mask",
)
ODD_MASKS = ("kl_mask", "Loss_Mask", "lossMask", "attention_mask", "prompt_mask", "truncated_mask", "MASKS", "mask_2")
ODD_NAMES = ("", "\x1b[2J", "a.b", "\u202e", "x" * 5000, "\n", "[bold]", "Logprob", "logprob ")
TEXTS = (
    "a",
    " the",
    "\n",
    "\x1b[31m",
    "\u202e",
    "é",
    "漢",
    "\U0001f600",
    "\u200b",
    "[bold]",
    "[/x]",
    "<b>",
    "\\u0000",
    "</script>",
    "&amp;",
    "\t",
    "x" * 300,
    "",
)
#: Numbers that a log-probability or an advantage may be, if barely.
EXTREME = (0.0, -0.0, -1e-45, -1e-30, -1e-7, -0.5, -30.25, -87.3, -103.27893, -1e3 - 0.5, -1e10, -3.4e38, -9999.0, -1e9)
LARGE = (0.0, 3.4e38, -3.4e38, 1e-45, -1e-45, 1e30, 1.0, -1.0, 1e-38)
STEPS = (0, 1, -1, 2**62, -(2**62), 2**63 - 1, -(2**63 - 1), 10**6)
#: What may stand where a number is due.
BAD: tuple[Any, ...] = (
    float("nan"),
    float("inf"),
    float("-inf"),
    1e308,
    -1e308,
    1e39,
    2**63,
    2**64,
    -(2**70),
    10**400,
    2.7,
    True,
    False,
    None,
    "x",
    "-0.5",
    "",
    [],
    [1],
    [None],
    {},
    {"a": 1},
    1.0,
    100.0,
    -9999,
    -1e9,
    [[1]],
    "\ud800",
    7**4999,
    "BIG",
    "DEEP",
)


@dataclass(slots=True)
class Sketch:
    """A log: name → one value a line. ``kind`` says what was done to it, ``tokens`` and ``sequences`` what it holds."""

    columns: dict[str, list[Any]]
    lists: bool
    kind: str
    tokens: int = 0
    sequences: int = 0
    files: list[str] = field(default_factory=list)


def sketch(random_: random.Random, size: int) -> Sketch:
    """A log of ``size`` lines: one in four sound, the others with values or columns that are not."""
    lists = random_.random() < 0.4
    kind = random_.choice(("sound", "extreme", "bad values", "bad values", "bad columns", "bad bytes", "bad bytes"))
    log = _responses(random_, size) if lists else _tokens(random_, size)
    if random_.random() < 0.15:
        _grade(log, random_)
    log.kind = kind
    if kind == "extreme":
        _make_extreme(log, random_)
    elif kind == "bad values":
        for _ in range(random_.choice((1, 1, 2, 5))):
            _set_bad(log, random_)
    elif kind == "bad columns":
        _change_columns(log, random_)
    return log


def _pair(random_: random.Random) -> tuple[float, float]:
    mu = -random_.expovariate(random_.choice((0.3, 2.0, 20.0)))
    return min(0.0, mu * random_.uniform(0.7, 1.4)), mu


def _masks(random_: random.Random) -> list[str]:
    return random_.sample(MASKS, random_.choice((0, 0, 1, 1, 2)))


def _keep(random_: random.Random, names: list[str], kinds: tuple[Any, Any]) -> dict[str, Any]:
    return {name: kinds[random_.random() < 0.8] for name in names}


def _flags(random_: random.Random) -> tuple[Any, Any]:
    """What a log writes for leave out, and for keep."""
    return random_.choice(((0, 1), (False, True), (0.0, 1.0)))


def _tokens(random_: random.Random, size: int) -> Sketch:
    """One line a token. A response's rows stand together."""
    masks, pi, mu = _masks(random_), random_.choice(PI), random_.choice(MU)
    flags = _flags(random_)
    with_step, with_update, with_text = (random_.random() < share for share in (0.7, 0.3, 0.3))
    as_text = random_.random() < 0.3
    rows: list[dict[str, Any]] = []
    kept: set[int] = set()
    sequence = 0
    while len(rows) < size:
        for _ in range(min(random_.choice((1, 3, 10, 40)), size - len(rows))):
            now, then = _pair(random_)
            row = {pi: now, mu: then, "advantage": random_.choice((-1.0, 0.5, 0.0)), **_keep(random_, masks, flags)}
            row["sequence_id"] = f"r{sequence // 2}" if as_text else sequence // 2
            row |= {"step": sequence // 8} if with_step else {}
            row |= {"update": sequence % 2} if with_update else {}
            row |= {"text": random_.choice(TEXTS), "token": random_.randrange(50_000)} if with_text else {}
            if not with_update:
                row["sequence_id"] = f"r{sequence}" if as_text else sequence
            rows.append(row)
            if all(row[name] for name in masks):
                kept.add(sequence)
        sequence += 1
    tokens = sum(all(row[name] for name in masks) for row in rows)
    return Sketch({name: [row[name] for row in rows] for name in rows[0]}, False, "sound", tokens, len(kept))


def _responses(random_: random.Random, size: int) -> Sketch:
    """One line a response."""
    masks, pi, mu = _masks(random_), random_.choice(PI), random_.choice(MU)
    flags = _flags(random_)
    one_advantage = random_.random() < 0.5
    columns: dict[str, list[Any]] = {name: [] for name in (pi, mu, "advantages", "step", "tokens", "texts", *masks)}
    tokens = sequences = 0
    for i in range(size):
        length = random_.choice((1, 2, 5, 12))
        pairs = [_pair(random_) for _ in range(length)]
        keeps = [_keep(random_, masks, flags) for _ in range(length)]
        kept = [all(keep.values()) for keep in keeps]
        columns[pi].append([a for a, _ in pairs])
        columns[mu].append([b for _, b in pairs])
        advantage = random_.choice((-1.0, 0.5, 0.0))
        columns["advantages"].append(advantage if one_advantage else [advantage if keep else None for keep in kept])
        columns["step"].append(i // 5)
        columns["tokens"].append([random_.randrange(50_000) for _ in range(length)])
        columns["texts"].append([random_.choice(TEXTS) for _ in range(length)])
        for name in masks:
            columns[name].append([keep[name] for keep in keeps])
        tokens += sum(kept)
        sequences += any(kept)
    for name in ("step", "tokens", "texts"):
        if random_.random() < 0.5:
            del columns[name]
    return Sketch(columns, True, "sound", tokens, sequences)


def _grade(log: Sketch, random_: random.Random) -> None:
    """A reward and a group of each response in the place of its advantage, if that leaves groups of several."""
    columns = log.columns
    count = len(next(iter(columns.values())))
    if log.lists:
        keys: list[Any] = list(range(count))
        groups = [i // 3 for i in keys]
    else:
        names = [name for name in ("step", "update", "sequence_id") if name in columns]
        keys = list(zip(*(columns[name] for name in names), strict=True))
        groups = [0] * count
        step = columns.get("step", [0] * count)
        if len({key for key, at in zip(keys, step, strict=True) if at == step[0]}) < 2:
            return
    if count < 6:
        return
    del columns["advantages" if log.lists else "advantage"]
    rewards = {key: random_.choice((0.0, 1.0, -0.5)) for key in keys}
    columns[random_.choice(("reward", "score"))] = [rewards[key] for key in keys]
    columns[random_.choice(("uid", "group_id", "prompt_index"))] = groups


def _make_extreme(log: Sketch, random_: random.Random) -> None:
    """Values that are allowed, at the ends of what is."""
    share = random_.choice((0.02, 0.3, 1.0))
    pools = {
        name: LARGE if name.startswith("advantage") else EXTREME
        for name in log.columns
        if name in (*PI, *MU) or name.startswith("advantage")
    }
    if not log.lists:
        pools |= {name: STEPS for name in ("step",) if name in log.columns}
    for name in random_.sample(sorted(pools), random_.randint(1, len(pools))):
        few = random_.sample(pools[name], random_.randint(1, len(pools[name])))

        def change(value: Any, few: Any = few) -> Any:
            if isinstance(value, list):
                return [change(item) for item in value]
            return random_.choice(few) if random_.random() < share else value

        log.columns[name] = [change(value) for value in log.columns[name]]


def _set_bad(log: Sketch, random_: random.Random) -> None:
    """One value of one column that is not of its kind."""
    name = random_.choice(list(log.columns))
    at = random_.randrange(len(log.columns[name]))
    value = log.columns[name][at]
    if isinstance(value, list) and value and random_.random() < 0.8:
        value = list(value)
        value[random_.randrange(len(value))] = random_.choice(BAD)
        log.columns[name][at] = value if random_.random() < 0.9 else value[:-1]
    else:
        log.columns[name][at] = random_.choice(BAD)


def _change_columns(log: Sketch, random_: random.Random) -> None:
    """A column more, less, under another name, of another kind or in another order of rows."""
    columns = log.columns
    name = random_.choice(list(columns))
    length = len(columns[name])
    change = random_.randrange(7)
    if change == 0:
        del columns[name]
    elif change == 1:
        columns[random_.choice((*ODD_MASKS, *PI, *MU, *MASKS, *ODD_NAMES))] = columns.pop(name)
    elif change == 2:
        columns[random_.choice((*ODD_MASKS, *PI, *MU, *MASKS, "entropy", "update"))] = random_.choice(
            ([0] * length, [1.5] * length, [[1]] * length, ["x"] * length, [None] * length, list(columns[name]))
        )
    elif change == 3:
        value = random_.choice(BAD)
        columns[name] = [value] * length
    elif change == 4:
        order = random_.sample(range(length), length)
        log.columns = {name: [values[i] for i in order] for name, values in columns.items()}
    elif change == 5:
        columns[name] = [[value] for value in columns[name]]
    else:
        columns[name] = [value[0] if isinstance(value, list) and value else value for value in columns[name]]
