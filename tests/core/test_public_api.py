"""The flat public API, loaded on first use."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import drpo

pytestmark = pytest.mark.slow

#: Names that other people's code relies on.
PROMISED = {
    "OBJECTIVES",
    "Metric",
    "Objective",
    "ObjectiveOutput",
    "TokenBatch",
    "aggregate",
    "diagnose",
    "gradient_weight",
    "group_advantages",
    "make_objective",
    "token_logprobs",
}


def test_what_is_promised_is_there():
    assert set(drpo.__all__) >= PROMISED
    assert len(drpo.__all__) == len(set(drpo.__all__))
    assert isinstance(drpo.__version__, str)


@pytest.mark.parametrize("name", drpo.__all__)
def test_every_name_resolves_to_the_one_object(name: str):
    value = getattr(drpo, name)
    assert not isinstance(value, ModuleType)
    assert getattr(drpo, name) is value
    assert name in dir(drpo)
    home = importlib.import_module(drpo._HOME[name])
    assert getattr(home, name) is value
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)


def test_names_for_type_checkers_are_those_at_run_time():
    """The imports under TYPE_CHECKING are what editors see; the table is what runs."""
    tree = ast.parse(Path(drpo.__file__).read_text(encoding="utf-8"))
    imports = [node for branch in tree.body if isinstance(branch, ast.If) for node in branch.body]
    declared = {alias.name: node.module for node in imports if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert declared == drpo._HOME
    assert set(drpo._HOME) == set(drpo.__all__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'drpo' has no attribute 'agregate'"):
        drpo.agregate  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ImportError):
        exec("from drpo import nothing_of_the_kind")


# Each in a fresh interpreter: what is tested is the order of first use.
@pytest.mark.parametrize(
    "code",
    [
        "import drpo, drpo.aggregation, drpo.advantages, drpo.diagnostics, drpo.metrics, drpo.kernels\n"
        "assert callable(drpo.aggregate) and callable(drpo.diagnose) and callable(drpo.token_logprobs)",
        "import drpo\ndrpo.aggregate\nimport drpo.aggregation, types\n"
        "assert isinstance(drpo.aggregate, types.FunctionType)\n"
        "assert isinstance(drpo.aggregation, types.ModuleType)\n"
        "assert drpo.aggregation.aggregate is drpo.aggregate",
        "from drpo import *\nassert set(OBJECTIVES) and aggregate and token_logprobs and TokenBatch",
        "import drpo, sys\nassert set(drpo.__all__) <= set(dir(drpo))\nassert 'torch' not in sys.modules",
        "import drpo\nfrom drpo import objectives\nassert drpo.OBJECTIVES is objectives.OBJECTIVES",
    ],
)
def test_the_api_does_not_depend_on_the_order_of_imports(code: str):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_tour_of_the_documentation():
    """The calls that the documentation shows, as they stand there."""
    import torch

    logprobs = torch.tensor([-0.5, -1.0, -2.0], requires_grad=True)
    batch = drpo.TokenBatch(logprobs, torch.tensor([-0.6, -0.9, -2.5]), torch.tensor([1.0, 1.0, -1.0]))
    objective = drpo.make_objective("drpo", delta=0.15)
    assert objective == drpo.OBJECTIVES["drpo"](**{"delta": 0.15})
    out = objective(batch)
    assert isinstance(out, drpo.ObjectiveOutput) and out.loss.shape == (3,)
    assert drpo.gradient_weight(objective, batch).shape == (3,)
    loss = drpo.aggregate(out.loss, batch, mode="token_mean", denominator=None)
    loss.backward()
    assert logprobs.grad is not None and bool(logprobs.grad.any())
    assert all(isinstance(metric, drpo.Metric) for metric in drpo.diagnose(batch, delta=0.15).values())
    hidden, weight, targets = torch.randn(3, 4), torch.randn(7, 4), torch.tensor([1, 2, 3])
    values, entropy = drpo.token_logprobs(hidden, weight, targets, temperature=1.0, backend="auto")
    assert values.shape == entropy.shape == (3,)
