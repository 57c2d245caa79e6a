"""Sphinx configuration of the documentation site: ``make site`` writes it to build/site.

The source directory is the root of the repository, so that a link is the same on the site and in a repository viewer.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "src"), str(ROOT)]

import drpo  # noqa: E402

project = "drpo"
author = "the drpo contributors"
version = release = drpo.__version__

root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**"]
#: Folders that hold no page: they are not walked.
exclude_patterns = sorted(
    entry.name for entry in ROOT.iterdir() if entry.is_dir() and entry.name not in ("docs", "results")
)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "pages"]

# Anchors as a repository viewer makes them from headings.
myst_heading_anchors = 4
# Options stand in the text as --name, which smart quotes would turn into a dash.
smartquotes = False
# A block without a language is a command or its output.
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 80
napoleon_use_rtype = False
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = f"drpo {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
