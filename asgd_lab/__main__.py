"""`asgd-lab` and `python -m asgd_lab` are the command line. First come signals and output.

Nothing heavy is imported before.
"""

from __future__ import annotations

import contextlib
import os
import sys

if __name__ == "__main__":
    # Python has put the current directory first on the search path: a torch.py or a signal.py in a stranger's folder
    # must not be imported instead of the real one. So the directory is removed before any other import, unless this
    # package itself lies in it.
    with contextlib.suppress(OSError):  # the current directory may have been removed
        if sys.path[0] in ("", os.getcwd()) and not os.path.samefile(os.path.dirname(os.path.dirname(__file__)), "."):
            del sys.path[0]

from asgd_lab import interrupts, output
from asgd_lab.errors import refusal


def main() -> None:
    """Set up signals and output, then run the command line."""
    interrupts.quit_at_once()
    output.install()
    # Otherwise numpy would start a thread for every core in each process of a run.
    for library in ("OPENBLAS", "OMP"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    try:
        os.getcwd()
    except OSError as error:  # libraries fail without one, and relative paths mean nothing
        raise SystemExit(f"the current directory cannot be used: {error.strerror}") from None
    try:
        from asgd_lab.app.cli import main as program
    except Exception as error:
        if (line := refusal(error)) is None:
            raise
        raise SystemExit(line) from None
    program()


if __name__ == "__main__":
    main()
