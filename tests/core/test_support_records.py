"""Supports in token logs: packed, written, read back, and judged by `drpo inspect`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import drpo
from drpo.errors import DataError
from drpo.files import read_jsonl
from drpo.inspection.inspect import inspect
from drpo.support import Support

ROWS = [[5], [0, 7, 151_935], [3, 4], [0], [2, 9, 11]]


def test_packed_ids_are_read_back() -> None:
    support = Support.from_rows(ROWS)
    again = Support.from_packed(support.sizes.tolist(), support.packed())
    assert again.tolists() == ROWS and again.packed() == support.packed()
    assert Support.from_packed([], Support.from_rows([]).packed()).tolists() == []
    wide = Support.from_mask(torch.rand(40, 50_000, generator=torch.Generator().manual_seed(0)) < 0.02)
    assert Support.from_packed(wide.sizes.tolist(), wide.packed()).tolists() == wide.tolists()
    assert len(wide.packed()) < 2.5 * len(wide.ids)


@pytest.mark.parametrize("text", ["no base64!", "AAAA"])
def test_other_text_is_an_error(text: str) -> None:
    with pytest.raises(DataError, match=r"cannot be unpacked"):
        Support.from_packed([1], text)
    with pytest.raises(DataError, match=r"10 ids are packed, and the sizes add up to 2"):
        Support.from_packed([1, 1], Support.from_rows(ROWS).packed())


def logged(folder: Path, logprobs: list[float]) -> list[dict]:
    batch = drpo.TokenBatch(
        torch.tensor(logprobs),
        torch.tensor([0.0, -1.0, -0.7, 0.0, -0.9]),
        torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0]),
        sequence_ids=torch.tensor([0, 0, 0, 1, 1]),
    )
    with drpo.TokenLog(folder) as log:
        log.add(batch, step=1, support=Support.from_rows(ROWS))
    return list(read_jsonl(folder / "step-000001.jsonl"))


def test_a_loop_of_your_own_logs_supports_by_response(tmp_path: Path) -> None:
    records = logged(tmp_path / "tokens", [0.0, -1.1, -0.7, 0.0, -0.8])
    assert [record["support_sizes"] for record in records] == [[1, 3, 2], [1, 3]]
    read = [Support.from_packed(record["support_sizes"], record["support_ids"]).tolists() for record in records]
    assert read == [ROWS[:3], ROWS[3:]]
    found = inspect([tmp_path / "tokens" / "step-000001.jsonl"])
    assert not [finding for finding in found.findings if finding.name == "truncated"]
    with pytest.raises(DataError, match=r"support must be that of the batch's 1 tokens, got 5"):
        batch = drpo.TokenBatch(torch.zeros(1), torch.zeros(1), torch.ones(1))
        drpo.TokenLog(tmp_path / "other").add(batch, step=1, support=Support.from_rows(ROWS))


def test_a_support_of_one_token_whose_pi_is_not_one_is_a_fault(tmp_path: Path) -> None:
    logged(tmp_path / "tokens", [0.0, -1.1, -0.7, -0.2, -0.8])
    found = inspect([tmp_path / "tokens" / "step-000001.jsonl"])
    (finding,) = [finding for finding in found.findings if finding.name == "truncated"]
    assert finding.severity == "fault" and "on 1 of them it is lower, down to 0.819" in finding.evidence
