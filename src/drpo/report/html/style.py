"""The style sheet and the script of every page: files of `static/`, put together once."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from drpo.report.palette import color_classes, color_variables

_STATIC = files("drpo.report.html") / "static"


def _joined(*names: str) -> str:
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in names)


#: Light and dark by what the reader's system prefers, from a phone's width to a desk's.
STYLE = f"""
:root {{
  color-scheme: light dark;
  {color_variables(dark=False)}
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    {color_variables(dark=True)}
  }}
}}
{_joined("page.css", "tables.css", "figures.css", "tokens.css")}
{color_classes()}
"""
#: One script, the same on every page.
SCRIPT = f"\n(() => {{\n{_joined('page.js', 'tables.js', 'readout.js', 'tokens.js', 'start.js')}}})();\n"
#: What the page's policy names it by: a script with another byte in it does not run.
SCRIPT_HASH = "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode("utf-8")).digest()).decode("ascii")
