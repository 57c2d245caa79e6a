"""The command line: thin subcommands that import what they need when they run."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
import warnings
from typing import Any

from drpo.child_process import TELL_REFUSED_WRITES, WRITE_REFUSED
from drpo.cpus import begin_look, wait_briefly
from drpo.errors import DrpoError, WriteError
from drpo.printable import printable

#: What a file system answers to a path that it does not take, which is the user's to change and no defect.
REFUSED_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.ENOTDIR, errno.EROFS)


def main() -> None:
    """Entry point of ``drpo``: 0 on success, 2 for a mistake the user can fix, 1 for a defect of ours, 130 on Ctrl-C.

    Tracebacks are for ``--debug``, which may stand anywhere on the line.
    """
    wait_briefly()
    begin_look()
    import typer

    from drpo.cli.app import app

    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show μ gets its number
    try:
        sys.exit(app(arguments, prog_name="drpo", standalone_mode=False) or 0)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if debug:
            _complain(traceback.format_exc())
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's usage errors print themselves
            text = io.StringIO()
            error.show(file=text)  # pyright: ignore[reportAttributeAccessIssue]
            _complain(text.getvalue().rstrip("\n"))
            sys.exit(2)
        if isinstance(error, DrpoError):
            _complain(f"error: {error}")
            told = isinstance(error, WriteError) and TELL_REFUSED_WRITES in os.environ
            sys.exit(WRITE_REFUSED if told else 2)
        if isinstance(error, OSError) and error.errno in REFUSED_PATHS and error.filename is not None:
            _complain(f"error: cannot use the path {str(error.filename)[:80]!r}: {error.strerror}. Give another one.")
            sys.exit(2)
        _complain(
            f"error: {type(error).__name__}: {error}\nThis is a defect of drpo. Please report it with the "
            "traceback that --debug prints."
        )
        sys.exit(1)


def _complain(text: str) -> None:
    sys.stderr.write(printable(text) + "\n")


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    _complain(f"warning: {message}")
