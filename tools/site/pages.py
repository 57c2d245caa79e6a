"""Sphinx extension: what the site has beyond the pages of the repository.

The navigation, the pages of the studies, a first page named index.html, and links to folders as text with their path.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

from drpo.cli.lab import study_page
from drpo.files import replace_text
from drpo.inspection.inspect import inspect
from drpo.integrations.hosts import HOSTS
from drpo.lab.run import kept_results
from drpo.lab.study import check_study
from drpo.report.inspection.page import build_inspection_page
from drpo.train.config_text import read_yaml
from examples import token_logs
from tools.site.figure_colors import figure_colors

#: Heading in the navigation → its pages, in the order in which a reader needs them.
NAVIGATION = {
    "Start": ("demo", "demo-llm", "training", "resume", "compare", "tracking", "glossary"),
    "In your trainer": (
        "integrations/README",
        *(f"integrations/{host}" for host in HOSTS),
        *(f"integrations/{page}" for page in ("verl-cpu", "nemo-rl", "slime", "open-instruct")),
        "recipes",
    ),
    "Your own loop": ("own-loop",),
    "Inspect a run": ("inspect", "tutorial-inspect", "mismatch", "sampling", "truncated-sampling", "precision", "moe"),
    "Which objective": ("which-objective", "gradient-weight", "gradient-mass", "objectives", "geometry"),
    "The lab": ("lab", "studies", "settings", "long-tail"),
    "Models and tasks": ("models", "architectures", "bases", "tasks"),
    "Reference": ("reference", "schema", "one-gpu", "performance", "benchmarks", "testing"),
}
#: Pages in the root of the repository, last in the navigation.
CONTRIBUTE = ("CONTRIBUTING", "CHANGELOG")
#: Page → the scripts and style sheets of static/ that it has beside the theme's.
ASSETS = {
    "docs/gradient-weight": ("palette.css", "gradient_weight.css", "gradient_weight.js", "gradient_weight_page.js")
}
#: Folder of the site with a page for each study.
STUDIES = "studies"
#: Folder of the site with the inspection page of each log of the tutorial.
LOGS = "token-logs"
REDIRECT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta http-equiv="refresh" content="0; url={page}">
<link rel="canonical" href="{page}">
</head>
<body><p><a href="{page}">{title}</a></p></body>
</html>
"""


def navigation() -> str:
    """Hidden tables of contents, from which the theme makes the navigation."""
    groups = {caption: [f"docs/{page}" for page in pages] for caption, pages in NAVIGATION.items()}
    parts = []
    for caption, pages in {**groups, "Contribute": CONTRIBUTE}.items():
        parts.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n".join(parts)


def studies(root: Path) -> dict[str, Path]:
    """Name → folder of every study whose results are committed."""
    return {file.parent.name: file.parent for file in sorted((root / "results").glob("*/study.yaml"))}


def links_to_studies(root: Path) -> str:
    """A sentence with a link to the page of every study."""
    links = [f'<a href="../{STUDIES}/{name}.html">{name}</a>' for name in studies(root)]
    return f"Each study has a page with charts, curves and every run: {', '.join(links)}."


def links_to_logs() -> str:
    """A sentence with a link to the inspection page of every log of the tutorial."""
    links = [f'<a href="../{LOGS}/{name}.html">{name}</a>' for name in token_logs.NAMES]
    return f"The pages that `drpo inspect` writes for the three logs: {', '.join(links)}."


def add_to_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append what only the site needs to a page's text."""
    if docname == app.config.root_doc:
        source[0] += f"\n\n{navigation()}\n"
    elif docname == "docs/studies":
        title, text = source[0].split("\n", 1)
        source[0] = f"{title}\n\n{links_to_studies(Path(app.srcdir))}\n{text}"
    elif docname == "docs/tutorial-inspect":
        title, text = source[0].split("\n", 1)
        source[0] = f"{title}\n\n{links_to_logs()}\n{text}"


def add_assets(app: Sphinx, pagename: str, *_: Any) -> None:
    """Give a page its scripts and style sheets."""
    for file in ASSETS.get(pagename, ()):
        if file.endswith(".js"):
            app.add_js_file(file, loading_method="defer")
        else:
            app.add_css_file(file)


def show_folders(app: Sphinx, doctree: nodes.document) -> None:
    """Replace a link to a folder by its text and the folder's path: the site has no page for a folder."""
    root = Path(app.srcdir)
    for link in list(doctree.findall(pending_xref)):
        if link["reftype"] != "myst" or link.get("refdomain") is not None:
            continue
        folder = Path(os.path.normpath((root / link["refdoc"]).parent / link["reftarget"]))
        if folder.is_dir():
            path = f"{folder.relative_to(root)}/"
            inside = [child.deepcopy() for child in link.children]
            said = link.astext().rstrip("/") == path.rstrip("/")
            link.replace_self(
                inside if said else [*inside, nodes.Text(" ("), nodes.literal(path, path), nodes.Text(")")]
            )


def write_other_pages(app: Sphinx, exception: Exception | None) -> None:
    """Write palette.css, index.html, the page of every study, and that of every log of the tutorial."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    page = app.builder.get_target_uri(app.config.root_doc)
    replace_text(out / "_static" / "palette.css", figure_colors())
    replace_text(out / "index.html", REDIRECT.format(title=app.config.html_title, page=page))
    (out / STUDIES).mkdir(exist_ok=True)
    for name, folder in studies(Path(app.srcdir)).items():
        study = check_study(read_yaml(folder / "study.yaml"), name)
        replace_text(out / STUDIES / f"{name}.html", study_page(kept_results(study, folder), folder))
    write_inspections(Path(app.srcdir), out / LOGS)


def write_inspections(root: Path, out: Path) -> None:
    """Write the inspection page of every log of the tutorial into the folder ``out``."""
    out.mkdir(exist_ok=True)
    for name in token_logs.NAMES:
        with contextlib.chdir(root):  # the pages name the logs as one does in a clone
            found = inspect([(token_logs.FOLDER / name).relative_to(root)])
        replace_text(out / f"{name}.html", build_inspection_page(found))


def escape_bars(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep |π − μ| in a docstring from being a substitution of reStructuredText, outside of ``code``."""
    for i, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [re.sub(r"(?<!\\)\|", r"\\|", part) for part in parts[::2]]
        lines[i] = "``".join(parts)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hooks."""
    app.connect("source-read", add_to_source)
    app.connect("doctree-read", show_folders)
    app.connect("html-page-context", add_assets)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("build-finished", write_other_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
