"""Write the generated parts of the documentation from docstrings, recipes and the records below results/.

python -m tools.docs            # pages, figures, and results/*/report.html
python -m tools.docs --check    # write nothing; name every page that differs, and exit with 1 if any does
"""

from __future__ import annotations

import argparse
import sys
import warnings

from drpo.errors import DrpoError, DrpoWarning
from tools import ROOT
from tools.docs.pages import PAGES, differing, write


def main() -> None:
    """Write or compare."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.docs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare the pages, write nothing")
    check = parser.parse_args().check
    warnings.simplefilter("ignore", DrpoWarning)  # a study has δ = 12.5 on purpose
    try:
        if check:
            _check()
        else:
            for file in write():
                print(file.relative_to(ROOT), flush=True)
    except DrpoError as error:
        sys.exit(str(error))


def _check() -> None:
    pages = differing()
    for page in pages:
        print(f"{page} is not what its sources make")
    if pages:
        sys.exit("Run `make docs`.")
    print(f"{len(PAGES)} pages are what their sources make")


if __name__ == "__main__":
    main()
