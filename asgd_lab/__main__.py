"""`asgd-lab` and `python -m asgd_lab` are the command line. First come signals and output.

Nothing heavy is imported before.
"""

from __future__ import annotations

import contextlib
import os
import sys

if __name__ == "__main__":
    # Python has put the current directory first: a stranger's folder with a torch.py or a signal.py in it must not be
    # where those are imported from. So this comes before all imports of what is not loaded yet. The directory stays
    # where this package itself lies in it.
    with contextlib.suppress(OSError):  # there may be no current directory any more
        if sys.path[0] in ("", os.getcwd()) and not os.path.samefile(os.path.dirname(os.path.dirname(__file__)), "."):
            del sys.path[0]

from asgd_lab import interrupts, output
from asgd_lab.errors import refusal


def main() -> None:
    """The program."""
    interrupts.quit_at_once()
    output.install()
    # Each process of a run would have a thread of numpy's for every core of the machine.
    for library in ("OPENBLAS", "OMP"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    try:
        os.getcwd()
    except OSError as error:  # libraries would die of it, and relative paths mean nothing
        raise SystemExit(f"the current directory cannot be used: {error.strerror}") from None
    try:
        from asgd_lab.cli import main as program
    except Exception as error:
        if (line := refusal(error)) is None:
            raise
        raise SystemExit(line) from None
    program()


if __name__ == "__main__":
    main()
