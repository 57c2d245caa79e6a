"""Settings as text: YAML files and ``key.sub=value``, read and written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from drpo.errors import ConfigError
from drpo.recipe_files import recipe_file

#: No setting needs more; deeper values are refused before anything recurses over them.
MAX_DEPTH = 20
#: Characters of a configuration file or of one override.
MAX_LENGTH = 256 * 1024
#: Digits of a whole number.
MAX_DIGITS = 40
#: Characters of a dotted key.
MAX_KEY = 200

_RESOLVERS = {
    "bool": (r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", "tTfFyYnNoO"),
    "int": (r"[-+]?(?:0|[1-9](?:_?[0-9])*|0x[0-9a-fA-F]+|0b[01]+)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}


class _Loader(yaml.SafeLoader):
    """YAML without what settings have no use for: anchors, aliases, merge keys, tags, dates, numbers to base 60 or
    with an octal zero in front. A key may stand once in a mapping, and numbers may be written 3e-4."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML's own attribute)
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refused("anchors (&) and aliases (*) are not read; write the value out, or quote it", event)
        if getattr(event, "tag", None) is not None:
            raise _refused("tags (!) are not read; leave the tag out, or quote the value", event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refused(f"nested more than {MAX_DEPTH} deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.value == "<<" and key.style is None:  # quoted, it is a name like any other
                raise _refused("merge keys (<<) are not read; write the values out", key)
            if key.tag != "tag:yaml.org,2002:str":
                raise _refused(f"the key {str(key.value)[:40]!r} is not a name; quote it if it is meant as one", key)
        values = super().construct_mapping(node, deep)
        if len(values) < len(node.value):
            keys = [str(key.value) for key, _ in node.value]
            raise _refused(f"the key {max(keys, key=keys.count)!r} stands twice", node)
        return values

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > MAX_DIGITS:
            raise _refused(f"a whole number of {len(node.value)} characters; no setting takes one", node)
        return super().construct_yaml_int(node)


for _name, (_pattern, _first) in _RESOLVERS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(file: str | Path | None) -> dict[str, Any]:
    """The mapping that a YAML file or ``recipe:NAME`` holds; numbers may be written 3e-4. Empty for None.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    if file is None:
        return {}
    try:
        with recipe_file(file).open("rb") as stream:
            data = stream.read(MAX_LENGTH + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read the configuration {file}: not UTF-8 (byte {error.object[error.start]:#04x} at "
            f"{error.start}). Give a YAML file."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise ConfigError(f"cannot read the configuration {file}: {error}") from error
    if len(data) > MAX_LENGTH:
        raise ConfigError(
            f"{file} is too long for a configuration (more than {MAX_LENGTH // 1024} KiB). Give a YAML "
            "file of 'key: value' lines; a data file is named by task.path=FILE."
        )
    values = _parsed(text, f"{file} is not YAML")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold 'key: value' lines, got a {type(values).__name__}")
    return values


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """``key.sub=value`` texts as nested values.

    Raises:
        ConfigError: one is not of that form, or two contradict each other.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        parts = path.split(".")
        if not equals or not all(parts) or not path.isprintable() or len(path) > MAX_KEY or len(parts) > MAX_DEPTH:
            raise ConfigError(f"{override!r} is neither a file nor key=value. Write for example objective.delta=0.2")
        if len(text) > MAX_LENGTH:
            raise ConfigError(
                f"{path}: the value has {len(text)} characters, more than {MAX_LENGTH}. Put it into a "
                "file, or shorten it."
            )
        value = _parsed(text, f"{override!r}: the value is not YAML", len(parts))
        if "#" in text and "#" not in str(value):
            raise ConfigError(
                f"{override!r}: what follows # is a comment in YAML and would be lost. Quote the value: {path}='\"…\"'"
            )
        _place(values, parts, value, override)
    return values


def _place(values: dict[str, Any], parts: list[str], value: Any, override: str) -> None:
    """Set the value at the dotted key ``parts``; a mapping and the name alone of what it describes go together."""
    *parents, leaf = parts
    where: dict[str, Any] = values
    for depth, parent in enumerate(parents):
        below = where.get(parent, {})
        inner: Any = {"name": below} if isinstance(below, str) else below
        if not isinstance(inner, dict):
            whole = ".".join(parents[: depth + 1])
            raise ConfigError(
                f"{override!r}: {whole} is set to {below!r} by another override, and a part of it by "
                "this one. Leave one of them out."
            )
        where[parent] = inner
        where = inner
    before = where.get(leaf)
    if not isinstance(before, dict):
        where[leaf] = value
    elif isinstance(value, str):
        before["name"] = value  # task.path=… task=jsonl, in either order
    elif isinstance(value, dict):
        where[leaf] = {**before, **value}
    else:
        given = ", ".join(f"{'.'.join(parts)}.{key}" for key in before)
        raise ConfigError(f"{override!r} would discard {given}, set by another override. Leave one of them out.")


def _parsed(text: str, what: str, depth: int = 0) -> Any:
    """The value that a YAML text stands for.

    Args:
        text: YAML.
        what: how a message about it begins.
        depth: of the place where the value goes.
    """
    try:
        loader = _Loader(text)
        loader.depth = depth
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        tab = ". Indent with spaces, not with tabs" if "'\\t'" in str(error.problem) else ""
        raise ConfigError(f"{what}: {error.problem or error.context}{place}{tab}") from error
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML does not allow
        raise ConfigError(f"{what}: {' '.join(str(error).split())}") from error


def _refused(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys. A mapping stays a value if it is empty, or if one of its keys
    cannot be part of a dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        deeper = isinstance(value, Mapping) and value and all(map(_can_be_dotted, value))
        found |= flat(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return found


def _can_be_dotted(key: str) -> bool:
    """Whether :func:`parse_overrides` takes ``key`` as a part of a dotted one."""
    return bool(key) and key.isprintable() and not set(key) & set(".=")


def as_text(value: Any) -> str:
    """``value`` as :func:`parse_overrides` reads it back."""
    if isinstance(value, str) and re.fullmatch(r"[\w./:+-]+", value) and yaml.load(value, _Loader) == value:
        return value
    return _flow(value)


def _flow(value: Any) -> str:
    """``value`` as YAML in one line, its texts quoted."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    # What JSON leaves as it is and YAML does not take, or folds.
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]",
        lambda found: f"\\u{ord(found[0]):04x}",
        json.dumps(value, ensure_ascii=False),
    )
