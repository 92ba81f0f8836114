"""`python -m tests.benchmarks [NAME ...]`: run all benchmarks or the named ones, and keep what they measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.benchmarks.report import kept, spread, write
from tests.benchmarks.suite import BENCHMARKS
from tests.benchmarks.table import RESULTS


def main(arguments: Sequence[str]) -> None:
    """Each benchmark's rows are kept when it is over, so that one that fails loses those of no other."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all, if none is named")
    parser.add_argument("--tiny", action="store_true", help="sizes that only try the code: the numbers mean nothing")
    parser.add_argument("--results", type=Path, metavar="FILE", help=f"if not given, {RESULTS.name}; none if --tiny")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    results = given.results or (None if given.tiny else RESULTS)
    torch.set_num_threads(1)
    for name in given.names or BENCHMARKS:
        print(f"== {(BENCHMARKS[name].__doc__ or name).splitlines()[0]}", flush=True)
        rows = []
        for row in BENCHMARKS[name].measure(given.tiny):
            rows.append(kept(name, row))
            print(f"{row.what}: {spread(rows[-1])} (n = {rows[-1]['n']})", flush=True)
        if results is not None:
            write(results, name, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
