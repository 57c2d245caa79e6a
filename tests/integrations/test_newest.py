"""The canary: what it installs, how it counts, and the table that it makes."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from packaging.utils import canonicalize_name

from drpo.files import read_json
from drpo.integrations.hosts import HOSTS
from tools import RESULTS
from tools.docs.newest_table import line, table
from tools.measure.newest import counts, first_line, last_error, pin_files, relaxed, wanted

WITH_EXTRA = [host for host in HOSTS.values() if host.extra]
REPORT = """<testsuites><testsuite>
<testcase classname="a.b" name="passes"/>
<testcase classname="a.b" name="skips"><skipped message="no GPU"/></testcase>
<testcase classname="a.b" name="fails"><failure message="long">def test():
>       assert x
E       ValueError: trl 2.0 has no GRPOTrainer
</failure></testcase>
<testcase classname="" name="a.c"><error message="collection failure">E   ModuleNotFoundError: No module named 'ray'
</error></testcase></testsuite></testsuites>"""


def test_counts() -> None:
    found = counts(ET.fromstring(REPORT))
    assert (found["passed"], found["skipped"], found["failed"]) == (1, 1, 2)
    assert found["failures"] == [
        "b::fails: ValueError: trl 2.0 has no GRPOTrainer",
        "a.c: ModuleNotFoundError: No module named 'ray'",
    ]


@pytest.mark.parametrize("host", WITH_EXTRA, ids=lambda host: host.name)
def test_only_the_host_s_own_packages_are_free(host) -> None:
    lines = [line for file in pin_files(host) for line in relaxed(host, file)]
    free = [line for line in lines if "==" not in line]
    assert sorted(map(canonicalize_name, free)) == sorted(host.tested)
    assert {"torch", "pytest"} <= set(wanted(host)) and all("=" not in name for name in wanted(host))


def test_what_pip_said_is_one_line() -> None:
    output = (
        "ERROR: Cannot install a and b\n\nThe conflict is caused by:\nERROR: ResolutionImpossible: for help visit x\n"
    )
    assert last_error(output) == "ERROR: ResolutionImpossible: for help visit x"
    assert last_error("") == "(no output)" and len(first_line("x" * 500)) == 198


def test_a_row() -> None:
    found = {
        "host": "TRL",
        "date": "2026-11-29",
        "python": "3.11.7",
        "tested": {"trl": ">=1.14.1,<1.17"},
        "versions": {"trl": "1.17.0", "torch": "2.13.0+cpu", "transformers": ""},
        "pip": "",
        "passed": 3,
        "skipped": 0,
        "failed": 0,
        "failures": [],
        "error": "",
    }
    assert line(found) == (
        "| TRL | trl >=1.14.1,<1.17 | trl 1.17.0, torch 2.13.0 | 3.11.7 | 3 passed, 0 skipped, 0 failed | yes | "
        "nothing | 2026-11-29 |"
    )
    broken = line(found | {"failed": 1, "failures": ["a::b: x | y"], "pip": "ERROR"})
    assert "| no | pip: ERROR; a::b: x \\| y |" in broken


def test_the_table_names_each_host_that_was_tried() -> None:
    records = [read_json(file) for file in (RESULTS / "newest").glob("*.json")]
    assert records and all(line(record) in table() for record in records)
    assert {record["host"] for record in records} <= {host.title for host in WITH_EXTRA}
