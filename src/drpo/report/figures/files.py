"""Figures on disk."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from drpo.files import replace_bytes, writing


def save_figure(figure: Figure, file: Path, dpi: int = 160) -> None:
    """Write ``figure`` whole, as PNG; its folder is made.

    Raises:
        WriteError: the disk refuses; what was there stays.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format="png", metadata={"Software": None})
    with writing(file, "Free space, fix its permissions or choose another --out."):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(file, drawn.getvalue())
