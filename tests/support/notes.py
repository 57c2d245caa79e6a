"""An observer that keeps what a run said."""

from __future__ import annotations

from drpo.train.observer import Observer


class Notes(Observer):
    """``notes`` in their order, warnings among them."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)
