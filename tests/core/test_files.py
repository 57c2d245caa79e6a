"""Files stay whole: atomic replacement, torn last lines, refused writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.errors import CheckpointError, DataError, WriteError
from drpo.files import (
    append_records,
    cut_torn_line,
    growing_text,
    json_line,
    numbered_jsonl,
    read_json,
    read_jsonl,
    remove_folder,
    replace_text,
    writing,
)
from drpo.printable import printable


@pytest.mark.parametrize("torn", [b"", b"{", b'{"a": 1}', '{"a": "δ'.encode()[:-1], b"x" * 200_000])
def test_what_is_appended_after_a_torn_line_is_a_line_of_its_own(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "a.jsonl"
    append_records(file, [{"n": 1}])
    with file.open("ab") as stream:
        stream.write(torn)
    append_records(file, [{"n": 2}, {"n": math.nan}], sync=True)
    assert list(read_jsonl(file)) == [{"n": 1}, {"n": 2}, {"n": None}]


def test_cut_torn_line_says_how_much(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert cut_torn_line(file) == 0 and not file.exists()
    file.write_bytes(b'{"a": 1}\n{"a"')
    assert (cut_torn_line(file), file.read_bytes()) == (4, b'{"a": 1}\n')
    assert cut_torn_line(file) == 0
    file.write_bytes(b"all of it is torn")
    assert (cut_torn_line(file), file.read_bytes()) == (17, b"")


def test_an_append_that_the_disk_refuses_leaves_no_half_line(tmp_path: Path) -> None:
    """A file size limit of the operating system stands for a full disk; it is met in the middle of a record."""
    import subprocess
    import sys

    file = tmp_path / "a.jsonl"
    append_records(file, [{"n": 1}])
    code = (
        "import resource, signal, sys; from pathlib import Path; from drpo.files import append_records, writing\n"
        "from drpo.errors import WriteError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "file = Path(sys.argv[1])\n"
        "try:\n    with writing(file): append_records(file, [{'text': 'x' * 500}])\n"
        "except WriteError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert "cannot write to" in done.stdout and "too large" in done.stdout, done.stderr
    assert list(read_jsonl(file)) == [{"n": 1}]


def test_a_refused_write_is_one_message_and_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with (
        pytest.raises(WriteError, match=r"cannot write to .*page\.html.*Name another"),
        writing(tmp_path / "page.html", "Name another place."),
    ):
        replace_text(tmp_path / "page.html", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert issubclass(WriteError, CheckpointError)


def test_lone_surrogates_survive_as_json(tmp_path: Path) -> None:
    append_records(tmp_path / "a.jsonl", [{"path": "\udcff"}])
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"path": "\udcff"}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5_000, "digits"),
    ],
)
def test_json_that_cannot_be_read_is_one_line_with_the_file(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_json(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    if content.strip():
        with pytest.raises(DataError, match=r"line 1"):
            list(numbered_jsonl(file))


def test_a_folder_is_renamed_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "step-000001"
    folder.mkdir()
    (folder / "a").write_text("a")
    seen: list[bool] = []
    monkeypatch.setattr("shutil.rmtree", lambda path: seen.append(folder.exists()))
    remove_folder(folder)
    assert seen == [False]


def test_of_a_link_only_the_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    remove_folder(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(codec=None, categories=None), max_size=40))
def test_printable_text_steers_no_terminal_and_json_keeps_its_meaning(text: str) -> None:
    shown = printable(text)
    assert not set(shown) & set("\x1b\r\x07\x08\x9b\u202e\u2066\x00")
    shown.encode("utf-8")
    assert json.loads(printable(json_line({"a": text}))) == {"a": text}


def test_a_long_result_appears_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    with growing_text(file) as stream:
        stream.write("one\n")
        assert not file.exists()
    assert file.read_text() == "one\n" and [entry.name for entry in tmp_path.iterdir()] == ["found.jsonl"]


@pytest.mark.parametrize("reason", [KeyboardInterrupt, DataError])
def test_a_long_result_that_is_cut_short_keeps_what_there_is(reason: type[BaseException], tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    with pytest.raises(reason), growing_text(file) as stream:
        stream.write("one\n")
        raise reason
    assert not file.exists() and (tmp_path / "found.jsonl.partial").read_text() == "one\n"


def test_a_long_result_on_a_disk_that_refuses_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"nowhere/found\.jsonl"), growing_text(tmp_path / "nowhere" / "found.jsonl"):
        pass
