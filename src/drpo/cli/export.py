"""`drpo export`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from drpo.cli.evaluate import resolve_source
from drpo.train.export import export_model


def run_export(source: str, out: Path) -> None:
    """Write a run's newest checkpoint, or a model, as a plain Hugging Face directory."""
    _, model = resolve_source(source, [], Console(stderr=True))
    merged = export_model(model, out)
    how = "its LoRA adapter merged into the base, " if merged else ""
    Console().print(f"{out}  {model}, {how}float32", highlight=False, soft_wrap=True)
