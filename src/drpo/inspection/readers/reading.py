"""What a reader is told before it reads a log, and what it has to tell beside the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from drpo.inspection.readers.column_map import AUTOMATIC, ColumnMap
from drpo.inspection.readers.columns import is_mask


@dataclass(slots=True)
class Reading:
    """One pass over a log.

    Args:
        columns: the names that the user gave.
        masks: names of the masks that were applied, in order of appearance.
        masked: tokens that they left out.
        unfinished: the files, with the line, whose last line is cut off.
    """

    columns: ColumnMap = AUTOMATIC
    masks: list[str] = field(default_factory=list)
    masked: int = 0
    unfinished: list[str] = field(default_factory=list)

    def uses(self, columns: Mapping[str, str]) -> None:
        """Note the masks among ``columns`` (column → name in the file)."""
        self.masks += [name for column, name in columns.items() if is_mask(column) and name not in self.masks]
