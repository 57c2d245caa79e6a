"""The shipped recipes by name: ``recipe:NAME`` stands wherever a configuration or study file may be named.

NAME is the path below ``drpo/recipes`` without its suffix: ``recipe:settings/dense-bf16``, ``recipe:studies/smoke``,
``recipe:verl/qwen3-4b-base``. Files whose name starts with an underscore are parts that recipes include.
"""

from __future__ import annotations

from pathlib import Path

from drpo.errors import ConfigError, suggest

ROOT = Path(__file__).parent / "recipes"
PREFIX = "recipe:"


def names_below(folder: str = "") -> list[str]:
    """The names of the recipes in a folder and those below it, sorted; all of them for ``""``."""
    files = (ROOT / folder).rglob("*.yaml")
    return sorted(file.relative_to(ROOT).as_posix().removesuffix(".yaml") for file in files if file.name[0] != "_")


def recipe_file(source: str | Path, folder: Path | None = None) -> Path:
    """The file that ``source`` names: a shipped recipe after ``recipe:``, else a path, which starts at ``folder``.

    Raises:
        ConfigError: there is no recipe of this name.
    """
    text = str(source)
    if not text.startswith(PREFIX):
        return Path(source) if folder is None else folder / source
    name, names = text.removeprefix(PREFIX), names_below()
    if name not in names:
        elsewhere = [known for known in names if known.endswith(f"/{name}")]
        raise ConfigError(f"unknown recipe {name!r}.{suggest(elsewhere[0] if elsewhere else name, names)}")
    return ROOT / f"{name}.yaml"
