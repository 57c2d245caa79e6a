"""`drpo inspect` on ten million tokens in Parquet: seconds and peak memory of the whole command.

    python benchmarks/inspect_throughput.py [--tokens 10000000] [--text]

The log is made once, in a temporary directory. The bar: 60 s and 2 GB on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

#: Tokens made at a time, and tokens of a response.
PART, RESPONSE = 1_000_000, 500
MOST_SECONDS, MOST_BYTES = 60.0, 2e9


def main() -> int:
    """Make the log, inspect it in a child process, and print what that took as JSON; 1 if it took too much."""
    parser = argparse.ArgumentParser(description="time `drpo inspect` on a large log")
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--text", action="store_true", help="with the columns token and text")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokens.parquet"
        make_log(file, arguments.tokens, arguments.text)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "drpo", "inspect", str(file)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        # Of the largest child, which is the only one; kilobytes on Linux.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        found = {
            "tokens": arguments.tokens,
            "text": arguments.text,
            "file_bytes": file.stat().st_size,
            "seconds": round(seconds, 1),
            "peak_bytes": peak,
            "tokens_per_second": round(arguments.tokens / seconds),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
        }
    print(json.dumps(found))
    return int(seconds > MOST_SECONDS or peak > MOST_BYTES)


def make_log(file: Path, tokens: int, text: bool) -> None:
    """Long-tailed log-probabilities with a little drift; a part at a time, so that this process stays small."""
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


if __name__ == "__main__":
    sys.exit(main())
