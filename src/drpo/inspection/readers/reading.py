"""What a reader is told before it reads a log, and what it has to tell beside the tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from drpo.errors import DataError
from drpo.inspection.readers.column_map import AUTOMATIC, ColumnMap
from drpo.inspection.readers.columns import is_mask
from drpo.inspection.readers.group_rewards import GroupRewards
from drpo.inspection.readers.layouts import layout_of


@dataclass(slots=True)
class Reading:
    """One pass over a log.

    Args:
        columns: the names that the user gave.
        masks: names of the masks that were applied, in order of appearance.
        masked: tokens that they left out.
        unfinished: the files, with the line, whose last line is cut off.
        layouts: whose layouts the files have, in order of appearance.
        rewards: what the advantages are computed from, where none are logged.
        follows: a JSONL file is still being written: its reader stops at the last whole line, yields None, and goes on
            from there when it is asked again.
        ended: the last look at such a file: what is unfinished is read as that of any other.
    """

    columns: ColumnMap = AUTOMATIC
    masks: list[str] = field(default_factory=list)
    masked: int = 0
    unfinished: list[str] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    rewards: GroupRewards = field(default_factory=GroupRewards)
    follows: bool = False
    ended: bool = False

    def uses(self, columns: Mapping[str, str], present: Collection[str], where: str) -> None:
        """Note the masks, the layout and the source of the advantages of the file ``where``.

        Args:
            columns: column → name in the file.
            present: all names in the file.
            where: the file.

        Raises:
            DataError: this file has advantages and those before have none, or the other way round.
        """
        self.masks += [name for column, name in columns.items() if is_mask(column) and name not in self.masks]
        derived = "reward" in columns
        if self.layouts and derived != bool(self.rewards.reward):
            raise DataError(
                f"{where} has {'no advantages' if derived else 'advantages'} where the files before have "
                f"{'them' if derived else 'none'}. Inspect them separately."
            )
        if derived:
            self.rewards.reward, self.rewards.group = columns["reward"], columns["group"]
        layout = layout_of(columns, present, self.columns.names)
        if layout not in self.layouts:
            self.layouts.append(layout)

    def start_again(self) -> None:
        """Forget what the reading of all files counts, before they are read once more."""
        self.masked = 0
        self.unfinished.clear()
