"""The names that a user gives to the columns of a log: ``--map logprob=NAME,mask=NAME+NAME``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from drpo.errors import ConfigError, suggest

#: What can be named, in the order of the documentation. Several names, joined by +, for a mask only.
COLUMNS = (
    "logprob",
    "behavior_logprob",
    "advantage",
    "mask",
    "sequence_id",
    "step",
    "update",
    "token",
    "text",
    "proximal_logprob",
    "entropy",
    "support_size",
    "reward",
    "group",
)
#: Columns that can be declared absent.
OPTIONAL = ("mask", "step", "update", "token", "text", "proximal_logprob", "entropy", "support_size")
NONE = "none"
_FORM = "Write COLUMN=NAME, several separated by commas: --map logprob=NAME,behavior_logprob=NAME,mask=NAME."


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Column → its names in the file. No names: the column is not read although the file may have it."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def taken(self) -> set[str]:
        """The names that stand for a column already."""
        return {name for names in self.names.values() for name in names}


AUTOMATIC = ColumnMap()


def parse_column_map(texts: Iterable[str]) -> ColumnMap:
    """The map that the values of ``--map`` say.

    Args:
        texts: values such as ``logprob=lp,mask=loss_mask+tool_mask`` or ``mask=none``.

    Raises:
        ConfigError: a value is not of that form, a column is unknown or named twice, or a name is used twice.
    """
    names: dict[str, tuple[str, ...]] = {}
    for item in (item for text in texts for item in text.split(",")):
        column, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not value:
            raise ConfigError(f"--map: {item!r:.80} is not COLUMN=NAME. {_FORM}")
        if column not in COLUMNS and value in COLUMNS:
            raise ConfigError(f"--map: {item!r:.80} is the wrong way round. Write --map {value}={column:.80}.")
        if column not in COLUMNS:
            raise ConfigError(f"--map: unknown column {column!r:.80}.{suggest(column, COLUMNS)}")
        if column in names:
            raise ConfigError(f"--map names {column} twice. Give it once; masks are joined: mask=NAME+NAME.")
        names[column] = _names(column, value)
    _require_one_source(names)
    found = ColumnMap(names)
    if len(found.taken()) < sum(map(len, names.values())):
        raise ConfigError("--map uses one name for two columns. Each column of the file has one meaning.")
    return found


def _require_one_source(names: Mapping[str, tuple[str, ...]]) -> None:
    """Raise a ConfigError if the advantage is named in two ways, or half."""
    derived = {"reward", "group"} & names.keys()
    if derived and "advantage" in names:
        raise ConfigError(
            f"--map names advantage and {' and '.join(sorted(derived))}. Name the advantage, or the reward and the "
            "group that it is to be computed from."
        )


def _names(column: str, value: str) -> tuple[str, ...]:
    if value == NONE:
        if column not in OPTIONAL:
            raise ConfigError(f"--map: {column} cannot be {NONE}, it is needed. Name the column that holds it.")
        return ()
    return tuple(name.strip() for name in value.split("+")) if column == "mask" else (value,)
