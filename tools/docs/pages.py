"""The table of what `make docs` writes: pages, figures and the reports of the studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from drpo.files import replace_text
from tools import ROOT
from tools.docs import (
    architectures_page,
    bench_tables,
    demo_llm_table,
    findings_table,
    gradient_mass_table,
    heatmap_figure,
    inspection_table,
    long_tail_page,
    mismatch_page,
    newest_table,
    objective_page,
    parity_table,
    power_table,
    recipe_tables,
    second_round,
    settings_table,
    study_pages,
    threads_table,
    truncation_page,
    tutorial_page,
    weight_figure,
)
from tools.docs.blocks import replace_block

#: Makes the Markdown of a page or block.
Maker = Callable[[], str]


@dataclass(frozen=True)
class Drawing:
    """What draws a figure, its resolution, and the formats that it is saved in."""

    draw: Callable[[], Figure]
    dpi: int
    suffixes: tuple[str, ...] = (".png",)

    def save(self, folder: Path, name: str) -> Iterator[Path]:
        """Draw once and save each format; yields each file when it is written."""
        figure = self.draw()
        for suffix in self.suffixes:
            file = folder / f"{name}{suffix}"
            # The same figure is the same file: no dates, no versions, no random ids.
            metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
            with matplotlib.rc_context({"svg.hashsalt": "drpo"}):
                figure.savefig(file, dpi=self.dpi, metadata=metadata)
            yield file


#: Page → what makes all of it, or block → what makes it.
PAGES: dict[str, Maker | dict[str, Maker]] = {
    "docs/architectures.md": architectures_page.page,
    "docs/benchmarks.md": {"bench": bench_tables.tables},
    "docs/demo-llm.md": {"demo-llm": demo_llm_table.block},
    "docs/gradient-mass.md": {"gradient-mass": gradient_mass_table.block},
    "docs/inspect.md": {"findings": findings_table.table},
    "docs/integrations/README.md": {"parity": parity_table.tables, "newest": newest_table.table},
    "docs/lab.md": {"power": power_table.table},
    "docs/long-tail.md": {"long-tail": long_tail_page.block},
    "docs/mismatch.md": {"mismatch": mismatch_page.block},
    "docs/objectives.md": objective_page.page,
    "docs/performance.md": {
        "profile": bench_tables.profile,
        "model-step": bench_tables.model_step,
        "threads": threads_table.table,
        "support": bench_tables.support,
    },
    "docs/recipes.md": {"public": recipe_tables.public, "assumed": recipe_tables.assumed},
    "docs/schema.md": {"inspection": inspection_table.block},
    "docs/settings.md": {"settings": settings_table.block},
    "docs/studies.md": {
        "second-round": study_pages.second_round_block,
        "first-round": study_pages.first_round_block,
        "further": study_pages.further_block,
    },
    "docs/truncated-sampling.md": {"truncation": truncation_page.block},
    "docs/tutorial-inspect.md": {
        "healthy": tutorial_page.block("healthy", whole=True),
        "wrong-temperature": tutorial_page.block("wrong-temperature"),
        "collapsed": tutorial_page.block("collapsed"),
    },
    "docs/which-objective.md": {"family": second_round.family_block, "area": second_round.area_block},
}
#: Figure in docs/figures → what draws it.
FIGURES = {
    "delta": Drawing(study_pages.figure, 150),
    "gradient_weights": Drawing(weight_figure.figure, 160, (".svg", ".png")),
    "heatmap": Drawing(heatmap_figure.figure, 160),
    "long_tail": Drawing(long_tail_page.figure, 110),
    "mismatch": Drawing(mismatch_page.figure, 130),
    "settle2": Drawing(second_round.figure, 150),
}


def made(page: str) -> str:
    """Return the text that ``page`` (a key of :data:`PAGES`) should have; prose between blocks is kept."""
    makers = PAGES[page]
    if callable(makers):
        return makers()
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, make in makers.items():
        text = replace_block(text, name, make(), page)
    return text


def differing() -> list[str]:
    """Return the pages that are not what their sources make."""
    return [page for page in PAGES if (ROOT / page).read_text(encoding="utf-8") != made(page)]


def write() -> Iterator[Path]:
    """Write pages, figures and reports of studies; yields each file when it is written."""
    for page in PAGES:
        replace_text(ROOT / page, made(page))
        yield ROOT / page
    for name, drawing in FIGURES.items():
        yield from drawing.save(ROOT / "docs" / "figures", name)
    for name in study_pages.STUDIES:
        yield study_pages.write_report(name)
