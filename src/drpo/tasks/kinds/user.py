"""Tasks of the user's own: ``python:<module>:<Class>``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from drpo.errors import ConfigError, DrpoError, suggest
from drpo.tasks.base import Task
from drpo.tasks.parameters import check_parameters

METHODS = ("training_example", "heldout_examples", "reward")


def load_user_task(target: str, parameters: Mapping[str, Any]) -> Task:
    """Import ``<module>:<Class>`` and make the task. The working directory is looked at last.

    Raises:
        ConfigError: the module or class is not found, fails, or is not a task; the message says where.
    """
    name = f"python:{target}"
    module_name, separator, class_name = target.partition(":")
    if not (module_name and separator and class_name):
        raise ConfigError(f"task {name!r}: the form is python:<module>:<Class>, as in python:my_package.tasks:MyTask")
    module = _import(name, module_name)
    if not hasattr(module, class_name):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(
            f"task {name!r}: {module.__file__ or module_name} has no {class_name!r}.{suggest(class_name, classes)}"
        )
    factory = getattr(module, class_name)
    if not isinstance(factory, type):
        raise ConfigError(
            f"task {name!r}: {class_name} is {_kind(factory)}; a class is needed that has the "
            f"methods {', '.join(METHODS)} (see drpo.tasks.Task)."
        )
    missing = [method for method in METHODS if not callable(getattr(factory, method, None))]
    if missing:
        raise ConfigError(
            f"task {name!r}: {class_name} is not a task, it lacks the method"
            f"{'s' * (len(missing) > 1)} {', '.join(missing)}. Write them as drpo.tasks.Task "
            "has them."
        )
    check_parameters(name, factory, parameters)
    try:
        return factory(**parameters)
    except DrpoError:
        raise
    except Exception as error:
        raise ConfigError(f"task {name!r}: {class_name}(…) failed with {describe(error)}") from error


def _import(name: str, module_name: str) -> Any:
    if os.getcwd() not in sys.path and "" not in sys.path:
        # The `drpo` command lacks it, unlike `python -m`. Last, so that it hides no installed package.
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"task {name!r}: importing {module_name} failed with {describe(error)}. Install what it imports."
            ) from error
        raise ConfigError(
            f"task {name!r}: there is no module {error.name!r} on the import path. Run from "
            "the directory that holds it, add that directory to PYTHONPATH, or install its "
            "package."
        ) from error
    except Exception as error:
        raise ConfigError(f"task {name!r}: importing {module_name} failed with {describe(error)}") from error


def describe(error: BaseException) -> str:
    """The error in one line, with the place in the user's code where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _kind(value: Any) -> str:
    return "a function" if inspect.isroutine(value) else f"of type {type(value).__name__}"
