"""Which rows are one response: step, update and sequence_id together, compared as what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpo.errors import DataError
from drpo.inspection.inspect import inspect
from support.synthetic_log import Log, make_log, write_jsonl, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")
ENDINGS = ("jsonl", "parquet")


def write(file: Path, log: dict[str, Any]) -> Path:
    if file.suffix == ".parquet":
        return write_parquet(file, log)
    columns = {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in log.items()}
    rows = zip(*columns.values(), strict=True)
    file.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    return file


@pytest.fixture
def log() -> Log:
    return make_log(tokens=3000, drift=0.3)


def of_two_updates(log: Log) -> Log:
    """The same responses at update 0 and 1."""
    twice = {name: np.concatenate([values, values]) for name, values in log.items()}
    return twice | {"update": np.repeat([0, 1], len(log["logprob"]))}


def sort(log: Log, *names: str) -> Log:
    order = np.lexsort([log[name] for name in reversed(names)])
    return {name: values[order] for name, values in log.items()}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("order", [(), ("step", "update", "sequence_id"), ("step", "sequence_id", "update")])
def test_a_response_at_two_updates_is_two(tmp_path: Path, log: Log, ending: str, order: tuple[str, ...]) -> None:
    twice = of_two_updates(log)
    file = write(tmp_path / f"log.{ending}", sort(twice, *order) if order else twice)
    found = inspect([file], objectives=["drpo"])
    assert (found.tokens, found.sequences) == (6000, 120)


@pytest.mark.parametrize("ending", ENDINGS)
def test_updates_in_turn_are_refused_with_their_key(tmp_path: Path, log: Log, ending: str) -> None:
    twice = of_two_updates(log)
    order = np.arange(6000).reshape(2, 3000).T.flatten()  # token by token at update 0 and 1
    mixed = {name: values[order] for name, values in twice.items()}
    with pytest.raises(
        DataError,
        match=r"3: step 0, update 0, sequence_id 0 comes a second time.*Sort the records by "
        r"step, update, sequence_id",
    ):
        inspect([write(tmp_path / f"log.{ending}", mixed)])


TOKENS = 60
GOOD = {
    "logprob": [-0.5 - i / 100 for i in range(TOKENS)],
    "behavior_logprob": [-0.4 - i / 100 for i in range(TOKENS)],
    "advantage": [1.0] * TOKENS,
    "sequence_id": [i // 10 for i in range(TOKENS)],
    "step": [i // 20 for i in range(TOKENS)],
}


def with_value(column: str, at: int, value: Any) -> dict[str, Any]:
    values = list(GOOD.get(column, [0] * TOKENS))
    values[at] = value
    return {**GOOD, column: values}


BAD_JSON: list[tuple[str, Any]] = [
    *(
        ("step", value)
        for value in (float("nan"), float("inf"), 2**70, -(2**70), 10**400, 2.7, 1e30, True, "1", None, [1], {"a": 1})
    ),
    ("update", 2.7),
    ("update", float("nan")),
    ("update", None),
    ("update", 2**64),
    *(("sequence_id", value) for value in (float("nan"), float("inf"), 2.7, True, None, [1], {"a": 1})),
    *((column, value) for column in ("logprob", "behavior_logprob") for value in (10**400, True, "-0.5", [1], {})),
    ("advantage", 10**400),
    ("advantage", True),
    ("advantage", "1"),
    ("advantage", 1e39),
    ("advantage", float("nan")),
    ("entropy", 10**400),
    ("entropy", "0"),
    ("loss_mask", "1"),
    ("loss_mask", float("nan")),
    ("loss_mask", 10**400),
]


@pytest.mark.parametrize(("column", "value"), BAD_JSON, ids=[f"{c}-{v!r:.20}" for c, v in BAD_JSON])
def test_a_bad_value_in_json_names_file_line_and_column(tmp_path: Path, column: str, value: Any) -> None:
    file = write(tmp_path / "log.jsonl", with_value(column, 37, value))
    with pytest.raises(DataError, match=rf"log\.jsonl, line 38: {column} ") as error:
        inspect([file])
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("column", ["logprob", "step", "sequence_id", "score", "extra"])
def test_an_integer_of_five_thousand_digits_names_its_column(tmp_path: Path, column: str) -> None:
    rows = [dict(zip(GOOD, row, strict=True)) for row in zip(*GOOD.values(), strict=True)]
    lines = [json.dumps(row) for row in rows]
    value = "[" + "7" * 5000 + "]" if column == "extra" else "-" + "7" * 5000
    lines[37] = json.dumps({**rows[37], column: "BIG"}).replace('"BIG"', value)
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"log\.jsonl, line 38: the column '{column}' has an integer of more than"):
        inspect([tmp_path / "log.jsonl"])


BAD_PARQUET: list[tuple[str, str, Any]] = [
    ("step", "float64", float("nan")),
    ("step", "float64", float("inf")),
    ("step", "float64", 2.7),
    ("step", "float64", 1e30),
    ("step", "uint64", 2**64 - 1),
    ("step", "float32", float("nan")),
    ("step", "float64", None),
    ("step", "int64", None),
    ("update", "float64", 0.5),
    ("update", "int64", None),
    ("sequence_id", "float64", float("nan")),
    ("sequence_id", "float64", 2.7),
    ("sequence_id", "float16", 2.5),
    ("sequence_id", "string", None),
]


@pytest.mark.parametrize(("column", "kind", "value"), BAD_PARQUET)
def test_a_bad_value_in_parquet_names_file_row_and_column(tmp_path: Path, column: str, kind: str, value: Any) -> None:
    import pyarrow

    log = with_value(column, 37, value)
    values = [
        None if v is None else str(v) if kind == "string" else np.float16(v) if kind == "float16" else v
        for v in log[column]
    ]
    log[column] = pyarrow.array(values, type=getattr(pyarrow, kind)())
    with pytest.raises(DataError, match=rf"log\.parquet, row 38: {column} "):
        inspect([write_parquet(tmp_path / "log.parquet", log)])


@pytest.mark.parametrize("kind", ["struct", "list", "bool", "duration"])
def test_ids_that_cannot_be_compared_are_refused(tmp_path: Path, kind: str) -> None:
    import pyarrow

    ids = GOOD["sequence_id"]
    made = {
        "struct": lambda: pyarrow.array([{"a": i} for i in ids]),
        "list": lambda: pyarrow.array([[i] for i in ids]),
        "bool": lambda: pyarrow.array([i % 2 == 0 for i in ids]),
        "duration": lambda: pyarrow.array(ids, type=pyarrow.duration("s")),
    }[kind]()
    with pytest.raises(DataError, match=r"log\.parquet.*'sequence_id' must"):
        inspect([write_parquet(tmp_path / "log.parquet", {**GOOD, "sequence_id": made})])


@pytest.mark.parametrize("kind", ["float16", "float64", "uint8", "large_string", "string_view", "binary", "dictionary"])
def test_ids_and_steps_of_every_plain_type_are_read(tmp_path: Path, kind: str) -> None:
    import pyarrow

    ids = GOOD["sequence_id"]
    if kind in ("large_string", "string_view", "binary", "dictionary"):
        text = pyarrow.array([f"r{i}" for i in ids])
        made = text.dictionary_encode() if kind == "dictionary" else text.cast(getattr(pyarrow, kind)())
        log = {**GOOD, "sequence_id": made}
    else:
        cast = np.float16 if kind == "float16" else float if kind == "float64" else int
        typed = getattr(pyarrow, kind)()
        log = {
            **GOOD,
            **{name: pyarrow.array([cast(v) for v in GOOD[name]], type=typed) for name in ("sequence_id", "step")},
        }
    found = inspect([write_parquet(tmp_path / "log.parquet", log)], objectives=["drpo"])
    assert (found.sequences, [step.step for step in found.steps]) == (6, [0, 1, 2])


def test_whole_floats_in_json_are_the_integers(tmp_path: Path) -> None:
    """pandas writes integers so once a column had a hole."""
    log = {**GOOD, **{name: [float(v) for v in GOOD[name]] for name in ("sequence_id", "step")}}
    found = inspect([write(tmp_path / "log.jsonl", log)], objectives=["drpo"])
    assert (found.sequences, [step.step for step in found.steps]) == (6, [0, 1, 2])


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_steps_of_responses_may_be_lists(tmp_path: Path, ending: str, per_token: bool) -> None:
    log = {
        "logprobs": [[-0.5, -1.0], [-0.25]],
        "behavior_logprobs": [[-0.4, -1.1], [-0.3]],
        "advantage": [1.0, -1.0],
        "step": [[3, 3], [4]] if per_token else [3, 4],
        "update": [0, 1],
    }
    found = inspect([write(tmp_path / f"log.{ending}", log)], objectives=["drpo"])
    assert (found.sequences, [(step.step, step.tokens) for step in found.steps]) == (2, [(3, 2), (4, 1)])


@pytest.mark.parametrize("kind", ["fixed_size_list", "list_view", "large_list"])
def test_lists_of_every_type_are_read(tmp_path: Path, kind: str) -> None:
    import pyarrow

    value = pyarrow.float32()
    typed = {
        "fixed_size_list": pyarrow.list_(value, 2),
        "list_view": pyarrow.list_view(value),
        "large_list": pyarrow.large_list(value),
    }[kind]
    log = {name: pyarrow.array([[-0.5, -1.0], [-0.25, -2.0]], type=typed) for name in ("logprobs", "behavior_logprobs")}
    found = inspect([write_parquet(tmp_path / "log.parquet", {**log, "advantage": [1.0, -1.0]})], objectives=["drpo"])
    assert (found.tokens, found.sequences) == (4, 2)


def test_a_parquet_column_twice_is_refused(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: pyarrow.array(values) for name, values in GOOD.items()}
    arrays, names = [*columns.values(), columns["logprob"]], [*columns, "logprob"]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=names), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"log\.parquet has 2 columns called 'logprob'"):
        inspect([tmp_path / "log.parquet"])


def test_a_column_with_a_dot_in_its_name_is_read(tmp_path: Path) -> None:
    from drpo.inspection.readers.column_map import parse_column_map

    log = {"policy.lp": [[-0.5, -1.0]], "engine.lp": [[-0.4, -1.1]], "advantage": [1.0]}
    file = write_parquet(tmp_path / "log.parquet", log)
    columns = parse_column_map(["logprob=policy.lp,behavior_logprob=engine.lp"])
    assert inspect([file], objectives=["drpo"], columns=columns).tokens == 2


def test_a_log_of_one_update_is_as_before(tmp_path: Path, log: Log) -> None:
    alone = inspect([write_jsonl(tmp_path / "a.jsonl", log)], objectives=["drpo"])
    updates = inspect(
        [write_jsonl(tmp_path / "b.jsonl", {**log, "update": np.zeros(3000, dtype=np.int64)})], objectives=["drpo"]
    )
    assert (alone.sequences, alone.figures) == (updates.sequences, updates.figures)
