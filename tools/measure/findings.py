"""Count false alarms and detections of `drpo inspect`, and write results/findings.csv.

    python -m tools.measure.findings                  # what is missing in the file, about ten minutes of one CPU
    python -m tools.measure.findings --shard 0/2      # every second log, for two processes side by side

Clean logs are those of short runs of `drpo train` (the embedded bases and random models; temperatures, precisions and
updates per step by the seed) and of a simulated long-tailed policy (tests/support/synthetic_log.py). Faults are planted
in logs of both kinds (tests/support/planted.py). A line is one log: what was planted, and the names that were found.
Seeds from 2000 on are counted; detectors were tuned on smaller ones. `make docs` makes the table of docs/inspect.md.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drpo.errors import DrpoWarning
from drpo.inspection.inspect import inspect
from drpo.inspection.readers.sources import find_log, read_log
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from tools import RESULTS, ROOT

sys.path.insert(0, str(ROOT / "tests"))

from support import planted, tiny
from support.synthetic_log import Log, make_log, make_run, round_to_bfloat16, shift_by_one, write_parquet

FILE = RESULTS / "findings.csv"
FIRST_SEED, PLANTED_SEEDS = 2000, 20
FIELDS = ("planted", "size", "base", "seed", "tokens", "faults", "warnings")
WORDS = ["task=word_problems", "task.min_steps=2", "task.max_steps=2"]
#: Model of a clean run → its settings. One of random weights is made anew for each seed.
MODELS = {
    "embedded:arithmetic": [],
    "random": ["task=copy"],
    "embedded:dense": WORDS,
    "embedded:moe": WORDS,
    "embedded:reasoner": ["task=word_problems"],
}
#: Small ones more often.
ORDER = (*["embedded:arithmetic", "random"] * 3, "embedded:arithmetic", *list(MODELS)[2:])
TEMPERATURES = (1.0, 0.6, 1.2)
PRECISIONS = (("fp32", "fp32"), ("fp32", "bf16"), ("bf16", "bf16"), ("fp32", "fp8"), ("fp8", "fp8"))
COMMON = ["eval_every=0", "eval_examples=1", "eval_samples=1", "checkpoint_every=1000", "threads=1", "log_tokens=true"]
#: What cuts μ, as :func:`make_log` takes it.
CUTS: tuple[dict[str, Any], ...] = (
    {"top_p": 0.9},
    {"top_p": 0.95},
    {"min_p": 0.05},
    {"top_k": 20},
    {"top_k": 50},
)
#: Tokens of a clean simulated log.
SIZES = (1000, 2000, 4000, 8000, 16_000)


def clean_run(seed: int) -> Log:
    """The log of a short run, whose settings follow from the seed."""
    model = ORDER[seed % len(ORDER)]
    trainer, sampler = PRECISIONS[seed // 5 % 5]
    settings = [
        *COMMON,
        *MODELS[model],
        f"seed={seed}",
        f"temperature={TEMPERATURES[seed % 3]}",
        f"precision={trainer}",
        f"rollout_precision={sampler}",
        f"updates_per_step={(1, 2, 4, 8)[seed // 2 % 4]}",
        f"learning_rate={(5e-5, 1e-5)[seed % 2]}",
        f"prompts_per_step={(4, 8)[seed // 3 % 2]}",
        f"steps={1 + seed % 2}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = model
        if model == "random":
            path = str(Path(folder) / "model")
            letters = tiny.tokenizer()
            tiny.model(len(letters), seed, sharpness=1 + seed % 7 / 2).save_pretrained(path)
            letters.save_pretrained(path)
        run = RunDirectory(Path(folder) / "run")
        train(load_config(None, [f"model={path}", *settings])[0], run)
        return log_of(run.path)


def log_of(run: Path) -> Log:
    """The columns of a run's log."""
    parts = [tokens for tokens, _ in read_log(find_log([run]))]
    before = np.cumsum([0, *(int(tokens.sequences[-1]) + 1 for tokens in parts[:-1])])
    found: dict[str, list[Any]] = {
        "logprob": [tokens.logprobs for tokens in parts],
        "behavior_logprob": [tokens.behavior_logprobs for tokens in parts],
        "advantage": [tokens.advantages for tokens in parts],
        "sequence_id": [tokens.sequences + n for tokens, n in zip(parts, before, strict=True)],
        "step": [tokens.steps for tokens in parts],
        "update": [tokens.updates for tokens in parts],
        "token": [np.array(list(tokens.ids or ())) for tokens in parts],
    }
    return {name: np.concatenate(values) for name, values in found.items()}


def clean_simulated(seed: int) -> Log:
    """A log of the simulated policy; noise, drift, temperature and size follow from the seed."""
    random = np.random.default_rng(seed)
    temperature = TEMPERATURES[seed % 3]
    noise = float(10 ** random.uniform(-6, -1.7))
    both: dict[str, Any] = {"temperature": temperature, "trained_temperature": temperature}
    if seed % 2:
        return make_run(4, (1, 4, 8)[seed // 2 % 3], seed, noise, float(random.uniform(0, 0.3)), **both)
    return make_log(SIZES[seed // 2 % 5], seed, float(np.hypot(noise, random.uniform(0, 0.3))), **both)


#: Kind of a clean log → how many for each seed of planted ones, and what makes one.
CLEAN: dict[str, tuple[int, Callable[[int], Log]]] = {"run": (3, clean_run), "simulated": (7, clean_simulated)}


@dataclass(frozen=True, slots=True)
class Planted:
    """A fault at one size: the finding that is due, and what makes a log of a seed."""

    name: str
    size: str
    make: Callable[[int], Log]
    needs: str = ""


def bases(tokens: int) -> Callable[[int], Log]:
    """Sound logs: of the simulated policy for even seeds, of the shipped base's runs for odd ones."""

    def make(seed: int) -> Log:
        if seed % 2 == 0:
            return make_log(tokens, seed, 0.1)
        log = shipped()
        first = seed * 7919 % max(len(log["logprob"]) - tokens, 1)
        part = {name: values[first : first + tokens] for name, values in log.items()}
        whole = part["sequence_id"] != part["sequence_id"][0]
        return {name: values[whole] for name, values in part.items() if name != "update"}

    return make


_SHIPPED: list[Log] = []


def shipped() -> Log:
    """The log of one run of the shipped base, four updates a step."""
    if not _SHIPPED:
        with tempfile.TemporaryDirectory() as folder:
            run = RunDirectory(Path(folder) / "run")
            train(load_config(None, [*COMMON, "steps=6", f"seed={FIRST_SEED}"])[0], run)
            _SHIPPED.append(log_of(run.path))
    return _SHIPPED[0]


def faults() -> Iterator[Planted]:
    """All that is planted."""
    for group in (spans, edges, values, distributions, temperatures, moves, steps):
        yield from group()


def spans() -> Iterator[Planted]:
    """Tokens that were not sampled, or not as they were trained on."""
    for share in (0.05, 0.2):
        for is_copy in (False, True):
            what = "a copy of π" if is_copy else "μ = 1"
            yield Planted(
                "unsampled",
                f"tool output, {what}, 12 tokens in {share:.0%} of the responses, 4,000 tokens",
                lambda seed, share=share, is_copy=is_copy: planted.with_tool_output(
                    bases(4000)(seed), 12, share, is_copy, seed
                ),
            )
    for length in (3, 6):
        yield Planted(
            "unsampled",
            f"prompts of {length} tokens, μ = 1, 2,000 tokens",
            lambda seed, length=length: planted.with_prompts(bases(2000)(seed), length, False, seed),
        )
    for share in (0.05, 0.2):
        yield Planted(
            "retokenized",
            f"4 tokens in {share:.0%} of the responses, 6,000 tokens",
            lambda seed, share=share: planted.retokenized(bases(6000)(seed), share, 4, seed),
        )


def edges() -> Iterator[Planted]:
    """Masks that are off by one."""
    for tokens in (1000, 4000):
        for place in ("first", "last"):
            for is_zero in (True, False):
                what = "μ = 1" if is_zero else "another token's μ"
                yield Planted(
                    "mask_edge",
                    f"{place} token, {what}, {tokens:,} tokens",
                    lambda seed, tokens=tokens, place=place, is_zero=is_zero: planted.with_edge(
                        bases(tokens)(seed), place, is_zero, seed
                    ),
                )


def values() -> Iterator[Planted]:
    """Values that no log-probability of the sampled token has."""
    for share in (0.03, 0.1):
        yield Planted(
            "placeholder",
            f"μ = 1 on {share:.0%} of 4,000 tokens",
            lambda seed, share=share: planted.filled(bases(4000)(seed), "behavior_logprob", 0, share, seed),
        )
    for share in (0.005, 0.02):
        yield Planted(
            "unusable_logprobs",
            f"log μ = −9999 on {share:.1%} of 1,000 tokens",
            lambda seed, share=share: planted.filled(bases(1000)(seed), "behavior_logprob", -9999, share, seed),
        )
    for tokens in (200, 1000):
        yield Planted("rounded", f"{tokens:,} tokens", lambda seed, tokens=tokens: _rounded(bases(tokens)(seed)))
    for tokens in (500, 1000):
        yield Planted("shifted", f"{tokens:,} tokens", lambda seed, tokens=tokens: shift_by_one(bases(tokens)(seed)))


def distributions() -> Iterator[Planted]:
    """μ of another token, or of a distribution that was cut."""
    for tokens in (1000, 3000):
        yield Planted(
            "top_token", f"{tokens:,} tokens", lambda seed, tokens=tokens: planted.of_top_token(tokens, seed, 0.05)
        )
        for cut in CUTS:
            drift = 1e-3 if "top_k" in cut else 0.1
            name, value = next(iter(cut.items()))
            yield Planted(
                "truncated",
                f"{name} {value:g}, {tokens:,} tokens",
                lambda seed, tokens=tokens, cut=cut, drift=drift: make_log(tokens, seed, drift, **cut),
                f"{name.replace('_', '-')} ≈ ",
            )


def temperatures() -> Iterator[Planted]:
    """Of the sampler alone."""
    for tokens in (3000, 6000):
        for temperature in (0.8, 1.25):
            yield Planted(
                "temperature",
                f"T of μ {temperature:g}, {tokens:,} tokens",
                lambda seed, tokens=tokens, t=temperature: make_log(tokens, seed, 0.05, t),
            )


def moves() -> Iterator[Planted]:
    """A policy that moves too far, or μ of older weights."""
    for drift in (0.02, 0.1):
        yield Planted(
            "stale",
            f"one of four steps, a shift of {drift:g} a logit, 8,000 tokens",
            lambda seed, drift=drift: make_run(4, 4, seed, 1e-3, drift, older=[3]),
        )
    for drift in (0.5, 0.8):
        yield Planted(
            "update_drift",
            f"a shift of up to {drift:g} a logit, 4 updates, 4,000 tokens",
            lambda seed, drift=drift: make_run(2, 4, seed, 1e-4, drift),
        )
        yield Planted(
            "moved_far",
            f"a shift of {drift:g} a logit, 2,000 tokens",
            lambda seed, drift=drift: make_log(2000, seed, drift),
        )


def steps() -> Iterator[Planted]:
    """What shows over the steps, or in the advantages."""
    for tokens in (3000, 6000):
        yield Planted(
            "collapse",
            f"loops of 5 tokens in 80% of the responses of the last third, {tokens:,} tokens in 20 steps",
            lambda seed, tokens=tokens: planted.repeating(_in_steps(make_log(tokens, seed), 20), 5, 0.8, seed),
        )
    for share in (0.7, 0.8):
        yield Planted(
            "no_signal",
            f"Â = 0 in {share:.0%} of the responses, 6,000 tokens",
            lambda seed, share=share: planted.without_signal(bases(6000)(seed), share, seed),
        )


def _rounded(log: Log) -> Log:
    return {**log, "behavior_logprob": round_to_bfloat16(log["behavior_logprob"])}


def _in_steps(log: Log, count: int) -> Log:
    return {**log, "step": log["sequence_id"] * count // (int(log["sequence_id"].max()) + 1)}


def found_in(log: Log, needs: str) -> tuple[list[str], list[str]]:
    """The names of the faults and of the warnings in a log; a fault whose title lacks ``needs`` has a ? behind it."""
    with tempfile.TemporaryDirectory() as folder:
        found = inspect([write_parquet(Path(folder) / "log.parquet", log)], objectives=["drpo"]).findings
    faults = [f.name + ("" if needs in f.title else "?") for f in found if f.severity == "fault"]
    return faults, [f.name for f in found if f.severity == "warning"]


def jobs() -> Iterator[tuple[tuple[str, str, str, int], Callable[[int], Log], str]]:
    """Every log: its key, what makes it of its seed, and what the title must have."""
    for index in range(PLANTED_SEEDS):
        seed = FIRST_SEED + index
        for fault in faults():
            yield (fault.name, fault.size, "", seed), fault.make, fault.needs
        for base, (count, make) in CLEAN.items():
            for seed in range(FIRST_SEED + count * index, FIRST_SEED + count * (index + 1)):
                yield ("", "", base, seed), make, ""


def main() -> None:
    """Measure what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--shard", default="0/1", help="INDEX/COUNT: every COUNT-th log from INDEX on; default 0/1")
    arguments = parser.parse_args()
    index, count = map(int, arguments.shard.split("/"))
    warnings.simplefilter("ignore", DrpoWarning)  # short runs have little to learn from
    torch.set_num_threads(1)
    with suppress(FileExistsError), arguments.out.open("x", encoding="utf-8") as stream:
        stream.write(",".join(FIELDS) + "\n")  # by one of the processes
    done = {(r["planted"], r["size"], r["base"], int(r["seed"])) for r in read(arguments.out)}
    with arguments.out.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        for number, (key, make, needs) in enumerate(jobs()):
            if key in done or number % count != index:
                continue
            log = make(key[3])
            faults_found, warned = found_in(log, needs)
            row = (*key, len(log["logprob"]), " ".join(faults_found), " ".join(warned))
            writer.writerow(dict(zip(FIELDS, row, strict=True)))
            stream.flush()


def read(file: Path = FILE) -> list[dict[str, str]]:
    """The lines of the file, in an order that does not depend on that of the measurement; none if it does not exist."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


if __name__ == "__main__":
    main()
