"""Suite ``inspect``: the whole command `drpo inspect` on a log in Parquet, seconds and peak memory."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from drpo.bench.child import run_alone
from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, missing
from drpo.installation import install

#: Tokens made at a time, and tokens of a response.
PART, RESPONSE = 1_000_000, 500
VARIANTS = {"log-probabilities": False, "with tokens and text": True}


def run(settings: Settings, watch: Watch) -> Iterator[list[Row]]:
    """One case: the log with and without text, each made once."""
    tokens = settings.tokens or (2_000 if settings.quick else 1_000_000)
    reason = missing("pyarrow", install("inspect"))
    with tempfile.TemporaryDirectory() as folder:
        variants = {}
        for name, text in VARIANTS.items():
            if reason is None:
                watch(f"making a log of {tokens:,} tokens, {name}")
                variants[name] = inspect_turn(make_log(Path(folder) / f"{text}.parquet", tokens, text), tokens)
        case = Case(
            title=f"drpo inspect, {tokens:,} tokens in Parquet",
            sizes={"tokens": tokens},
            variants=variants,
            skipped=dict.fromkeys(VARIANTS, reason) if reason else {},
            warm_up=0,
            rounds=settings.rounds or (1 if settings.quick else 3),
        )
        yield measure(case, watch)


def inspect_turn(file: Path, tokens: int) -> Callable[[], Turn]:
    """A turn that inspects ``file``."""

    def turn() -> Turn:
        seconds, peak = run_alone([sys.executable, "-m", "drpo", "inspect", str(file)])
        return Turn(seconds, tokens, {"peak_bytes": peak, "file_bytes": file.stat().st_size})

    return turn


def make_log(file: Path, tokens: int, text: bool) -> Path:
    """Long-tailed log-probabilities with a little drift; a part at a time, so that this process stays small."""
    import pyarrow
    import pyarrow.parquet

    random = np.random.default_rng(0)
    words = np.array(["the", " of", " and", "∑", " 7", "\n", " therefore", "."])
    writer: pyarrow.parquet.ParquetWriter | None = None
    for first in range(0, tokens, PART):
        count = min(PART, tokens - first)
        index = (first + np.arange(count)) // RESPONSE
        behavior = -random.exponential(0.05, count) - random.exponential(2.0, count) * (random.random(count) < 0.3)
        logprob = np.minimum(behavior + behavior * random.normal(0, 0.1, count), 0)
        columns = {
            "logprob": logprob.astype(np.float32),
            "behavior_logprob": behavior.astype(np.float32),
            "advantage": np.sin(index * 12.9898).astype(np.float32),
            "sequence_id": index,
            "step": index // 256,
        }
        if text:
            token = random.integers(0, len(words), count)
            columns |= {"token": token, "text": words[token]}
        table = pyarrow.table(columns)
        writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return file
