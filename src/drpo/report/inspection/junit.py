"""The checks of an inspection as JUnit XML, which every CI system shows."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from drpo.inspection.gate import Check
from drpo.inspection.result import Inspection


def junit(found: Inspection, checks: Sequence[Check]) -> str:
    """One test case a check; without any the log alone is one, which could be read."""
    cases = checks or [Check(name="readable")]
    failures = sum(bool(check.failure) for check in cases)
    suite = ET.Element("testsuite", name="drpo inspect", tests=str(len(cases)), failures=str(failures), errors="0")
    for check in cases:
        case = ET.SubElement(suite, "testcase", classname="drpo.inspect", name=check.name)
        if check.failure:
            ET.SubElement(case, "failure", message=_text(check.failure))
    ET.SubElement(suite, "system-out").text = _text(found.answer.sentence)
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _text(text: str) -> str:
    """XML 1.0 has no control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
