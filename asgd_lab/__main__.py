"""`python -m asgd_lab` is the command line."""

from __future__ import annotations

from asgd_lab.cli import main

if __name__ == "__main__":
    main()
