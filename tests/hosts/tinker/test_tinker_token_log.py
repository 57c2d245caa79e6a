"""`drpo inspect` on data of the SDK's own types, written as docs/inspect.md shows."""

from __future__ import annotations

import json
from pathlib import Path

from drpo.integrations.parity import fixed_batch
from drpo.integrations.tinker.parity import datums, forward
from support.token_logs import same_figures


def test_data_and_training_logprobs_are_read(tmp_path: Path) -> None:
    padded = fixed_batch()
    data = datums(padded)
    training = [output["logprobs"].to_torch() for output in forward(padded).loss_fn_outputs]
    with (tmp_path / "step-1.jsonl").open("w") as stream:
        for datum, logprobs in zip(data, training, strict=True):
            record = {name: values.to_torch().tolist() for name, values in datum.loss_fn_inputs.items()}
            stream.write(json.dumps(record | {"training_logprobs": logprobs.tolist()}) + "\n")
    assert same_figures(tmp_path / "step-1.jsonl", padded, tmp_path) == "tinker-cookbook's data"
