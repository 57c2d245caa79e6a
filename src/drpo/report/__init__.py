"""Pages and pictures from run directories alone: neither torch nor the trainer is needed to draw them."""

from __future__ import annotations

from drpo.report.run.page import build_report, write_report

__all__ = ["build_report", "write_report"]
