"""What a study was when it was registered: digests of its file and of the analysis, kept before its first run."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import drpo
from drpo.code_version import digest, training_code
from drpo.cpus import cpu_model
from drpo.errors import ConfigError
from drpo.files import json_text, read_json, replace_text
from drpo.lab.study import Study

FILE = "about.json"
FOLDER = Path(__file__).parent
#: What turns runs into verdicts.
ANALYSIS = ("comparison.py", "judge.py", "metrics.py", "statistics", "surface.py", "tuning.py", "verdict.py")


def study_digest(study: Study) -> str:
    """The SHA-256 of what the study says, files that it names written out: the same for every version of drpo that has
    its keys."""
    values = study.model_dump(mode="json", exclude_defaults=True, exclude={"scales"})
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def analysis_digest() -> str:
    """The digest of the code that turns runs into verdicts."""
    return digest(FOLDER / name for name in ANALYSIS)


def register(study: Study, directory: Path) -> None:
    """Write about.json of a study that is about to run."""
    found = {
        "registered": datetime.now(UTC).isoformat(timespec="seconds"),
        "study": study_digest(study),
        "analysis": analysis_digest(),
        "drpo": drpo.__version__,
        "code": training_code(),
        "cpu": cpu_model(),
    }
    replace_text(directory / FILE, json_text({"registration": found}))


def registration(directory: Path) -> dict[str, Any] | None:
    """What about.json says of it; None for a study from before there was one."""
    file = directory / FILE
    found = read_json(file) if file.is_file() else {}
    return found.get("registration") if isinstance(found, dict) else None


def check_registration(study: Study, directory: Path) -> str:
    """What there is to say of the analysis; empty where it is the registered one.

    Raises:
        ConfigError: the study is not the one that was registered.
    """
    found = registration(directory)
    if found is None:
        return ""
    if found.get("study") != (now := study_digest(study)):
        raise ConfigError(
            f"{directory / FILE}: the study was registered as {str(found.get('study'))[:16]}, and is {now[:16]} now. A "
            "study is not changed once it is registered; put its file back, or choose another --out."
        )
    if found.get("analysis") != (now := analysis_digest()):
        return (
            f"the analysis changed since the study was registered ({found.get('analysis')} then, {now} now): verdicts "
            "may differ from those that were planned"
        )
    return ""
