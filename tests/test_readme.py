"""The README's promises that a test can keep; what runs is for docs/test_runnable_blocks.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import drpo
from drpo.installation import COMMAND
from drpo.integrations.hosts import HOSTS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORDS = 900
#: Pages whose tables are made from the studies.
FOUND_IN = ("docs/which-objective.md", "docs/studies.md")
#: A difference with its confidence interval, as the tables of the studies write it.
DIFFERENCE = r"[+-]\d\.\d{3} \([+-]\d\.\d{3} to [+-]\d\.\d{3}"


def section(title: str) -> str:
    """The text under a heading of the README."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_it_is_short() -> None:
    assert len(README.split()) <= WORDS


def test_it_opens_with_one_sentence_without_symbols() -> None:
    opening = README.split("\n\n")[1]
    assert opening.count(".") == 1 and opening.endswith(".")
    assert re.search(r"[^\x00-\x7f]|[=|^\\]", opening) is None


@pytest.mark.parametrize(
    "title",
    ["I use TRL or verl", "I write my own loop", "Is my trust region active?"],
    ids=["hosts", "loop", "inspect"],
)
def test_a_quickstart_has_at_most_eight_lines(title: str) -> None:
    blocks = re.findall(r"```\w*\n(.*?)```", section(title), re.DOTALL)
    assert blocks and sum(len(block.splitlines()) for block in blocks) <= 8


def test_the_loop_diagnoses() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "drpo.diagnose" in code and ".backward()" in code


def test_it_installs_as_the_messages_say() -> None:
    assert COMMAND.format(extras="train") in section("Install")


def test_what_was_found_is_what_the_studies_say() -> None:
    found = re.findall(DIFFERENCE, section("What we found"))
    tables = "".join((ROOT / page).read_text(encoding="utf-8") for page in FOUND_IN)
    assert len(found) >= 5
    assert [figure for figure in found if figure not in tables] == []


def test_the_hosts_versions_are_those_of_the_measured_table() -> None:
    table = (ROOT / "docs" / "integrations" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+) ([\d., ]+) \|", section("What was run where"), re.MULTILINE))
    assert set(rows) == {host.title for host in HOSTS.values()}
    run = [f"{title} {version}" for title, versions in rows.items() for version in versions.split(", ")]
    assert [host for host in run if f"| {host} " not in table] == []


def test_the_cited_version_is_the_package_s() -> None:
    assert f"version {drpo.__version__}," in section("Citation")


def test_every_folder_of_the_tree_exists_and_every_room_is_in_it() -> None:
    tree = section("Files")
    package = ROOT / "src" / "drpo"
    rooms = {folder.name for folder in package.iterdir() if (folder / "__init__.py").is_file()}
    folders = set(re.findall(r"(\S+)/(?=\s)", tree))
    assert rooms <= folders
    assert [folder for folder in folders if not (ROOT / folder).is_dir() and not (package / folder).is_dir()] == []


def test_every_page_is_in_its_table() -> None:
    listed = set(re.findall(r"\(docs/([\w/.-]+\.md)\)", section("Documentation")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= listed


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)):
        assert re.search(rf"^(?:{target}|{re.sub('-.*', '-%', target)}):", makefile, re.MULTILINE), target
