"""`drpo export`."""

from __future__ import annotations

from pathlib import Path

from drpo.cli.evaluate import resolve_source
from drpo.cli.printing import PlainConsole
from drpo.cli.settings import refuse_options
from drpo.errors import ConfigError
from drpo.model.export import export_model
from drpo.train.config_text import parse_overrides

#: What can be set: where an adapter's base is, and whether code may run.
_SETTINGS = ("model", "trust_remote_code")


def run_export(source: str, out: Path, settings: list[str], step: str | None) -> None:
    """Write a run's checkpoint, or a model, as a plain Hugging Face directory."""
    refuse_options([source, *settings], ("--out", "--step", "--debug"))
    notes = PlainConsole(stderr=True)
    given = parse_overrides(settings)
    for key in given.keys() - set(_SETTINGS):
        raise ConfigError(
            f"{key}: export would ignore it. It takes model=DIR (the base of an adapter) and trust_remote_code=true."
        )
    config, model = resolve_source(source, settings, notes, step)
    exported = export_model(model, out, given.get("model"), config.trust_remote_code)
    for note in exported.notes:
        notes.say(f"note: {note}")
    how = "its adapter merged into the base, " if exported.merged else ""
    PlainConsole().say(f"{out}  {model}, {how}float32")
