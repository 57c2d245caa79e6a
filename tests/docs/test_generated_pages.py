"""Every generated page, block and figure of the documentation is what its sources make."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.text import Text

from drpo.errors import DataError
from tools import ROOT
from tools.docs import __main__ as command
from tools.docs import pages
from tools.docs.blocks import blocks, replace_block

#: Studies hold δ = 12.5 on purpose.
pytestmark = [pytest.mark.filterwarnings("ignore::drpo.errors.DrpoWarning"), pytest.mark.slow]
#: Pixels that a repository viewer gives a figure.
README_WIDTH = 830
START, END = "<!-- speed: made by make docs -->", "<!-- end of speed -->"


@pytest.mark.parametrize("page", pages.PAGES)
def test_a_page_is_what_its_sources_make(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == pages.made(page), "run `make docs`"


def test_every_mark_belongs_to_the_table() -> None:
    marked = {
        str(file.relative_to(ROOT)): found
        for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        if (found := blocks(file.read_text(encoding="utf-8")))
    }
    assert marked == {page: list(makers) for page, makers in pages.PAGES.items() if not callable(makers)}


@pytest.mark.parametrize("name", pages.FIGURES)
def test_a_figure_is_drawn_and_committed(name: str, tmp_path: Path) -> None:
    files = list(pages.FIGURES[name].save(tmp_path, name))
    assert files
    for file in files:
        committed = ROOT / "docs" / "figures" / file.name
        # Fonts and anti-aliasing depend on the version of matplotlib, sizes do not.
        assert committed.is_file() and file.stat().st_size > 1000
        if file.suffix == ".png":
            assert file.read_bytes()[16:24] == committed.read_bytes()[16:24]  # width and height in the header


@pytest.mark.parametrize("name", pages.FIGURES)
def test_a_figure_can_be_read_at_the_width_of_a_readme(name: str) -> None:
    figure = pages.FIGURES[name].draw()
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]
    pixels = {text.get_text(): float(text.get_fontsize()) / 72 * README_WIDTH / figure.get_figwidth() for text in texts}
    assert {said: size for said, size in pixels.items() if size < 10} == {}
    assert all(panel.get_visible() for panel in figure.axes)  # no hole in the grid


def test_a_block_is_replaced_and_the_rest_is_kept() -> None:
    text = f"before\n\n{START}\n\nold\n\n{END}\n\nafter\n"
    assert replace_block(text, "speed", "new", "docs/a.md") == text.replace("old", "new")
    assert blocks(text) == ["speed"]


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        (f"old\n{END}\n", START),
        (f"{START}\nold\n", END),
        (f"{START}\n{START}\nold\n{END}\n", START),
        (f"{START}\nold\n{END}\n{END}\n", END),
        (f"{END}\nold\n{START}\n", END),
    ],
    ids=["no start", "no end", "two starts", "two ends", "swapped"],
)
def test_a_missing_or_doubled_mark_is_an_error_that_names_it(text: str, mark: str) -> None:
    with pytest.raises(DataError) as error:
        replace_block(text, "speed", "new", "docs/a.md")
    assert "docs/a.md" in str(error.value) and mark in str(error.value)


def test_the_check_names_pages_that_differ_and_the_command_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in {"whole.md": "new\n", "block.md": f"{START}\nold\n{END}\n"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(pages, "PAGES", {"whole.md": lambda: "new\n", "block.md": {"speed": lambda: "new"}})
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "FIGURES", {})
    monkeypatch.setattr(pages.study_pages, "STUDIES", [])
    monkeypatch.setattr("sys.argv", ["docs", "--check"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    said = capsys.readouterr().out
    assert stop.value.code not in (None, 0) and "block.md" in said and "whole.md" not in said
    monkeypatch.setattr("sys.argv", ["docs"])
    command.main()
    monkeypatch.setattr("sys.argv", ["docs", "--check"])
    command.main()
    assert (tmp_path / "block.md").read_text() == f"{START}\n\nnew\n\n{END}\n"
