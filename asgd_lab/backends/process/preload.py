"""Starts the fork server, from which all our processes are forked; it imports torch once and computes nothing.

Nothing here imports torch, so that whoever starts it first imports beside it and not before it. A fork after a parallel
torch operation would hang in the child: the fork server runs none.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver

from asgd_lab import interrupts

# torch.optim imports torch._dynamo with its first optimizer, which takes seconds: once is enough.
MODULES = ["torch._dynamo", "asgd_lab.backends.process.worker", "asgd_lab.backends.process.server"]
POOL_MODULES = [  # what whole runs need besides
    *("torch._dynamo", "asgd_lab.backends.process.pool", "asgd_lab.backends.sim", "asgd_lab.backends.inline"),
    *("pyarrow.parquet", "pyarrow.pandas_compat"),
]


def preload(modules: Sequence[str] = MODULES) -> None:
    """Start the fork server unless it runs. It is deaf to signals that end a run: they are the parent's to hear."""
    forkserver.set_forkserver_preload(list(modules))
    with interrupts.ignored():
        forkserver.ensure_running()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Hide the main module while children start, or each would import the user's main script again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
