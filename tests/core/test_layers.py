"""Imports point down only.

Layers are kept by a test or not at all. Each top-level module and folder of ``drpo`` declares its layer here;
one that does not, fails.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import drpo

#: Top-level module or folder → layer. A unit imports its own layer and those below.
LAYERS = {
    "checks": 0,
    "batch": 0,
    "support": 0,
    "metrics": 0,
    "errors": 0,
    "files": 0,
    "locking": 0,
    "run_schema": 0,
    "schema": 0,
    "printable": 0,
    "json_lines": 0,
    "run_directory": 0,
    "run_checkpoints": 0,
    "child_process": 0,
    "installation": 0,
    "code_version": 0,
    "allocator": 0,
    "cpus": 0,
    "intervals": 0,
    "collapse": 0,
    "learning_signal": 0,
    "setting_types": 0,
    "recipe_files": 0,
    "integrations.hosts": 0,
    "divergence": 1,
    "aggregation": 1,
    "advantages": 1,
    "token_log": 1,
    "objectives": 2,
    "diagnostics": 2,
    "kernels": 2,
    "mismatch": 2,
    "__init__": 2,  # the public API: names of layers 0 to 2
    "model": 3,
    "inspection": 3,
    "tasks": 3,
    "doctor": 3,
    "trackers": 3,
    "rollouts": 4,
    "train": 5,
    "lab": 6,
    "comparison": 6,
    "bench": 6,
    "host_runs": 6,
    "report": 7,
    "cli": 8,
    "__main__": 8,
    "integrations": 9,
}
#: Where a unit may look only part of the way down: unit → highest layer it may import.
#: (the plug-ins ship samplers for hosts that have none with log-probabilities, hence rollouts).
CEILINGS = {"integrations": 4}
#: Modules inside a folder that are units of their own: here the table of hosts, which every layer may read.
MODULES = {"integrations.hosts"}
#: Units that no other unit may import.
LEAVES = {"integrations", "__main__"}
#: unit → what it may not import although it lies below.
FORBIDDEN = {"report": {"train", "lab", "bench", "torch"}}
#: Entries that hold no code.
DATA = {"assets", "recipes", "py.typed"}

PACKAGE = Path(drpo.__file__).parent


@dataclass(frozen=True)
class Arrow:
    """One import: of the drpo unit ``target`` (or of ``torch``), in the unit ``source``."""

    source: str
    target: str
    where: str


def unit_of(file: Path, package: Path) -> str:
    module = ".".join(file.relative_to(package).with_suffix("").parts)
    return module if module in MODULES else module.partition(".")[0]


def units(package: Path) -> list[str]:
    return sorted(
        entry.name.removesuffix(".py") for entry in package.iterdir() if entry.name not in DATA | {"__pycache__"}
    )


def modules_imported(node: ast.AST, file: Path, package: Path) -> Iterator[str]:
    """Dotted names that an import loads, relative ones resolved; ``from a import b`` gives ``a.b``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = ["drpo", *file.relative_to(package).parent.parts]
            assert node.level <= len(parents), f"{file}: a relative import out of the package"
            base = ".".join([*parents[: len(parents) - node.level + 1], *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


def target_unit(module: str, package: Path) -> str | None:
    """The unit that a dotted name belongs to; None for what is outside, save torch."""
    parts = module.split(".")
    if parts[0] == "torch":
        return "torch"
    if parts[0] != "drpo":
        return None
    if ".".join(parts[1:3]) in MODULES:
        return ".".join(parts[1:3])
    if len(parts) > 1 and ((package / f"{parts[1]}.py").is_file() or (package / parts[1]).is_dir()):
        return parts[1]
    return "__init__"


def arrows(package: Path) -> Iterator[Arrow]:
    """Every import between units, wherever it stands: inside functions and under TYPE_CHECKING too."""
    for file in sorted(package.rglob("*.py")):
        source = unit_of(file, package)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for module in modules_imported(node, file, package):
                target = target_unit(module, package)
                if target is not None and target != source:
                    yield Arrow(source, target, f"{file.relative_to(package)}:{getattr(node, 'lineno', 0)} ({module})")


def violations(package: Path) -> list[str]:
    found = [
        f"{unit} declares no layer: add it to LAYERS in {Path(__file__).name}"
        for unit in units(package)
        if unit not in LAYERS
    ]
    for arrow in arrows(package):
        if arrow.target in FORBIDDEN.get(arrow.source, ()):
            found.append(f"{arrow.where}: {arrow.source} may not import {arrow.target}")
        if arrow.target == "torch" or arrow.source not in LAYERS or arrow.target not in LAYERS:
            continue
        if arrow.target in LEAVES:
            found.append(f"{arrow.where}: nothing may import {arrow.target}")
        elif LAYERS[arrow.target] > min(LAYERS[arrow.source], CEILINGS.get(arrow.source, 99)):
            found.append(
                f"{arrow.where}: {arrow.source} (layer {LAYERS[arrow.source]}) imports "
                f"{arrow.target} (layer {LAYERS[arrow.target]})"
            )
    return found


def cycle(package: Path) -> list[str]:
    """Units that import each other in a circle; the public API, which loads its names lazily, is left out."""
    below: dict[str, set[str]] = {unit: set() for unit in (*units(package), *MODULES)}
    for arrow in arrows(package):
        if "__init__" not in (arrow.source, arrow.target) and arrow.target in below:
            below[arrow.source].add(arrow.target)
    while leaves := {unit for unit, targets in below.items() if not targets}:
        below = {unit: targets - leaves for unit, targets in below.items() if unit not in leaves}
    return sorted(below)


def test_every_arrow_points_down():
    assert violations(PACKAGE) == []


def test_no_units_import_each_other_in_a_circle():
    assert cycle(PACKAGE) == []


def test_the_walk_sees_the_arrows_that_exist():
    seen = {(arrow.source, arrow.target) for arrow in arrows(PACKAGE)}
    assert {
        ("objectives", "batch"),
        ("diagnostics", "objectives"),
        ("__init__", "kernels"),
        ("batch", "torch"),
    } <= seen


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / "drpo" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root / "drpo"


CLEAN = {
    "__init__.py": "from drpo.batch import TokenBatch\n",
    "batch.py": "import torch\nfrom drpo.errors import DataError\n",
    "errors.py": "",
    "objectives/__init__.py": "from drpo.objectives.base import x\n",
    "objectives/base.py": "from drpo import TokenBatch\nfrom ..batch import TokenBatch\n",
    "train/loop.py": "def f():\n    import drpo\n    from drpo.objectives import base\n",
    "report/run/page.py": "from drpo.run_directory import x\n",
    "integrations/__init__.py": "",
    "integrations/hosts.py": "from drpo.errors import ConfigError\n",
    "integrations/trl.py": "import trl\nfrom drpo.objectives import x\nfrom . import y, hosts\n",
    "doctor/hosts.py": "from drpo.integrations import hosts\nfrom drpo.integrations.hosts import HOSTS\n",
    "assets/words.txt": "from drpo.cli import main\n",
    "py.typed": "",
}


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "batch.py",
            "from drpo.divergence import ratio\n",
            "batch.py:1 (drpo.divergence.ratio): batch (layer 0) imports",
        ),
        (
            "batch.py",
            "import drpo.objectives.base\n",
            "batch.py:1 (drpo.objectives.base): batch (layer 0) imports objec",
        ),
        (
            "batch.py",
            "from drpo import objectives\n",
            "batch.py:1 (drpo.objectives): batch (layer 0) imports objectives",
        ),
        (
            "batch.py",
            "from drpo import gradient_weight\n",
            "batch.py:1 (drpo.gradient_weight): batch (layer 0) imports __",
        ),
        ("batch.py", "\nimport drpo\n", "batch.py:2 (drpo): batch (layer 0) imports __init__ (layer 2)"),
        (
            "batch.py",
            "from .objectives import base\n",
            "batch.py:1 (drpo.objectives.base): batch (layer 0) imports objec",
        ),
        (
            "batch.py",
            "from . import train\n",
            "batch.py:1 (drpo.train): batch (layer 0) imports train (layer 5)",
        ),
        (
            "objectives/base.py",
            "from ..train import loop\n",
            "objectives/base.py:1 (drpo.train.loop): objectives (layer 2)",
        ),
        (
            "objectives/base.py",
            "def f():\n    from drpo.train import loop\n",
            "objectives/base.py:2 (drpo.train.loop): obj",
        ),
        (
            "objectives/base.py",
            "if TYPE_CHECKING:\n    import drpo.cli\n",
            "objectives/base.py:2 (drpo.cli): objectives (la",
        ),
        (
            "train/loop.py",
            "from drpo.report.run.page import x\n",
            "train/loop.py:1 (drpo.report.run.page.x): train (layer 5) imports",
        ),
        (
            "train/loop.py",
            "from drpo.integrations import trl\n",
            "(drpo.integrations.trl): nothing may import integrations",
        ),
        (
            "doctor/hosts.py",
            "from drpo.integrations import hosts, trl\n",
            "doctor/hosts.py:1 (drpo.integrations.trl): nothing may import integrations",
        ),
        (
            "integrations/hosts.py",
            "from drpo.objectives import x\n",
            "integrations/hosts.py:1 (drpo.objectives.x): integrations.hosts (layer 0) imports objectives (layer 2)",
        ),
        (
            "integrations/hosts.py",
            "from . import trl\n",
            "integrations/hosts.py:1 (drpo.integrations.trl): nothing may import integrations",
        ),
        ("report/run/page.py", "import torch.nn\n", "report/run/page.py:1 (torch.nn): report may not import torch"),
        (
            "report/run/page.py",
            "from drpo.train import loop\n",
            "report/run/page.py:1 (drpo.train.loop): report may not import tr",
        ),
        (
            "integrations/trl.py",
            "from drpo.train import loop\n",
            "integrations (layer 9) imports train (layer 5)",
        ),
        ("helpers.py", "", "helpers declares no layer: add it to LAYERS in test_layers.py"),
        ("helpers/more.py", "", "helpers declares no layer"),
    ],
)
def test_a_planted_arrow_is_detected(tmp_path: Path, file: str, text: str, expected: str):
    files = {
        **CLEAN,
        "run_directory.py": "",
        "divergence.py": "",
        "cli/app.py": "",
        "objectives/extra.py": "",
    }
    assert violations(plant(tmp_path / "clean", files)) == []
    found = violations(plant(tmp_path / "planted", {**files, file: text}))
    assert len(found) == 1 and expected in found[0], found


def test_a_planted_circle_is_detected(tmp_path: Path):
    assert cycle(plant(tmp_path / "clean", CLEAN)) == []
    package = plant(tmp_path / "planted", {**CLEAN, "errors.py": "def f():\n    import drpo.batch\n"})
    assert violations(package) == []
    assert cycle(package) == ["batch", "errors"] or set(cycle(package)) >= {"batch", "errors"}


# ---- what stays light


def loaded_by(code: str) -> set[str]:
    """Top-level modules in sys.modules after running ``code`` in a fresh interpreter."""
    report = "\nimport sys\nprint('LOADED', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


EVERY_MODULE = """
import importlib, pkgutil
package = importlib.import_module({name!r})
for module in pkgutil.walk_packages(package.__path__, {name!r} + "."):
    importlib.import_module(module.name)
"""


def test_the_check_sees_torch_where_it_is_loaded():
    assert "torch" in loaded_by("import drpo\ndrpo.TokenBatch")


def test_import_drpo_is_light():
    assert not {"torch", "numpy", "transformers", "yaml", "pydantic"} & loaded_by("import drpo\ndir(drpo)")


def test_the_table_of_hosts_is_light():
    loaded = loaded_by("from drpo.integrations.hosts import HOSTS\nassert HOSTS")
    assert not {"torch", "numpy", "yaml", "pydantic", "trl", "verl", "tinker", "prime_rl", "skyrl", "ray"} & loaded


@pytest.mark.skipif(importlib.util.find_spec("drpo.report") is None, reason="there is no drpo.report")
def test_the_report_does_without_torch():
    assert not {"torch", "transformers"} & loaded_by(EVERY_MODULE.format(name="drpo.report"))


@pytest.mark.skipif(importlib.util.find_spec("drpo.cli") is None, reason="there is no drpo.cli")
def test_the_command_line_does_without_torch_until_a_command_runs():
    help_of = """
import sys
import drpo.cli
sys.argv = ["drpo", "--help"]
try:
    drpo.cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert not {"torch", "transformers", "matplotlib"} & loaded_by(help_of)
