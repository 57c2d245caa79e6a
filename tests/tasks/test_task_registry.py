import subprocess
import sys
from pathlib import Path

import pytest

from drpo.errors import ConfigError
from drpo.tasks import FORMS, TASKS, make_task
from drpo.tasks.builtin.copy import CopyTask


def test_every_task_of_the_registry_has_its_form_described() -> None:
    assert set(TASKS) < set(FORMS)


def test_parameters_reach_the_task() -> None:
    task = make_task("copy", length=5, alphabet="xy")
    assert isinstance(task, CopyTask)
    assert set(task.training_example(0, 0).prompt) <= set("xy")


def test_importing_the_tasks_is_light() -> None:
    program = (
        "import sys, drpo.tasks\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'reasoning_gym'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sums.jsonl", r"unknown task 'sums\.jsonl'\. That is a data file: task=jsonl task\.path=sums\.jsonl"),
        ("coppy", r"unknown task 'coppy'\. Did you mean 'copy'\? Known: copy, jsonl, math, python:<module>"),
        ("", "unknown task ''"),
        ("reasoning_gym", "needs a data set: reasoning_gym:<dataset>, for instance reasoning_gym:chain_sum"),
        ("reasoning_gym:", "needs a data set"),
        ("python", "the form is python:<module>:<Class>"),
        ("python:only_a_module", "the form is python:<module>:<Class>, as in python:my_package.tasks:MyTask"),
        ("python:no_such_module:Task", r"no module 'no_such_module' on the import path.* PYTHONPATH"),
        ("python:json.nothing:Task", "no module 'json.nothing' on the import path"),
        ("python:json:JsonDecoder", r"has no 'JsonDecoder'\. Did you mean 'JSONDecoder'\?"),
        ("python:json:loads", "loads is a function; a class is needed that has the methods training_example"),
        ("python:sys:version", "version is of type str; a class is needed"),
        ("python:json:JSONDecoder", "it lacks the methods training_example, heldout_examples, reward"),
    ],
)
def test_bad_names(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task(name)


def test_a_data_set_without_its_library_s_name() -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(ConfigError, match="The data set of that name is reasoning_gym:chain_sum"):
        make_task("chain_sum")


def test_unknown_parameters() -> None:
    with pytest.raises(ConfigError, match=r"task 'copy' has no parameter 'lenght'\. Did you mean 'length'\?"):
        make_task("copy", lenght=3)


USER_MODULE = """
from drpo.tasks import Example

class Parity:
    def __init__(self, name, limit=10):
        if limit < 1:
            raise ValueError("limit too low")
        self.name, self.limit = name, limit
    def training_example(self, seed, index):
        return Example(prompt=f"{self.name} {index % self.limit}", answer=str(index % 2))
    def heldout_examples(self, count):
        return []
    def reward(self, example, text):
        return text == example.answer

class Half:
    def training_example(self, seed, index): ...
    def reward(self, example, text): ...
"""


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that is not on the import path, with modules of a user in it."""
    (tmp_path / "users_tasks.py").write_text(USER_MODULE)
    (tmp_path / "users_broken.py").write_text("import a_library_that_is_absent\n")
    (tmp_path / "users_failing.py").write_text("\n1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    for module in ("users_tasks", "users_broken", "users_failing"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def test_a_class_of_the_user_s_own(working_directory: Path) -> None:
    task = make_task("python:users_tasks:Parity", name="parity", limit=4)
    assert task.training_example(0, 5).prompt == "parity 1"


@pytest.mark.parametrize(
    ("target", "parameters", "message"),
    [
        ("users_tasks:Parity", {}, "needs the parameter name. It takes: name, limit"),
        ("users_tasks:Parity", {"name": "p", "limits": 3}, "no parameter 'limits'. Did you mean 'limit'?"),
        ("users_tasks:Parity", {"name": "p", "limit": 0}, "failed with ValueError: limit too low ("),
        ("users_tasks:Half", {}, "Half is not a task, it lacks the method heldout_examples."),
        ("users_tasks:Party", {}, "has no 'Party'. Did you mean 'Parity'?"),
        ("users_broken:Task", {}, "ModuleNotFoundError: No module named 'a_library_that_is_absent'"),
        ("users_failing:Task", {}, "users_failing failed with ZeroDivisionError: division by zero ("),
    ],
)
@pytest.mark.usefixtures("working_directory")
def test_what_can_be_wrong_with_it(target: str, parameters: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_task(f"python:{target}", **parameters)
    assert message in str(caught.value)
    if target.startswith("users_failing"):
        assert "users_failing.py, line 2" in str(caught.value)
