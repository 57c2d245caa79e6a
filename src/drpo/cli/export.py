"""`drpo export`."""

from __future__ import annotations

from pathlib import Path

from drpo.cli.evaluate import resolve_source
from drpo.cli.printing import PlainConsole
from drpo.train.export import export_model


def run_export(source: str, out: Path) -> None:
    """Write a run's newest checkpoint, or a model, as a plain Hugging Face directory."""
    _, model = resolve_source(source, [], PlainConsole(stderr=True))
    merged = export_model(model, out)
    how = "its LoRA adapter merged into the base, " if merged else ""
    PlainConsole().say(f"{out}  {model}, {how}float32")
