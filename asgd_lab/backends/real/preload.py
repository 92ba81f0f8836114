"""Starts the fork server, from which all our processes are forked; it imports torch once and computes nothing.

Nothing here imports torch, so that whoever starts it first imports beside it and not before it. A fork after a parallel
torch operation would hang in the child: the fork server runs none.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path

import asgd_lab
from asgd_lab import interrupts

# torch.optim imports torch._dynamo with its first optimizer, which takes seconds: once is enough.
MODULES = ["torch._dynamo", "asgd_lab.backends.real.worker", "asgd_lab.backends.real.server"]
POOL_MODULES = [  # what whole runs need besides
    *("torch._dynamo", "asgd_lab.backends.real.pool", "asgd_lab.backends.sim", "asgd_lab.backends.inline"),
    *("pyarrow.parquet", "pyarrow.pandas_compat"),
]
FIRST = "asgd_lab.backends.real.fork_server"
LONGEST_PATH = 70  # of a temporary folder, in which a socket still has a name


def preload(modules: Sequence[str] = MODULES) -> None:
    """Start the fork server unless it runs. It is deaf to signals that end a run: they are the parent's to hear."""
    forkserver.set_forkserver_preload([FIRST, *modules])
    _raise_limit()
    _make_short_directory()
    with interrupts.held(), _safe_path():
        resource_tracker.ensure_running()
    with interrupts.held(), _safe_path():  # again: starting the other lets signals through
        forkserver.ensure_running()


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Programs that are started inside import nothing from the current directory, which may be a stranger's folder.

    multiprocessing starts its servers with `python -c`, which would look there first, for `signal` too. And it does not
    hand them our module search path (before 3.12.8 and 3.13.1): this package would not be found in a plain tree.
    """
    wanted = {"PYTHONSAFEPATH": "1"}
    if (tree := _tree()) is not None:
        wanted["PYTHONPATH"] = os.pathsep.join(filter(None, [tree, os.environ.get("PYTHONPATH")]))
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _tree() -> str | None:
    """The folder that this package lies in where that is not one of installed packages."""
    folder = Path(asgd_lab.__file__).resolve().parents[1]
    return None if folder.name in ("site-packages", "dist-packages") else str(folder)


def _raise_limit() -> None:
    """Take as many descriptors as this program may: it needs some for each worker. Children inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _make_short_directory() -> None:
    """A socket's path has at most 107 bytes: where the temporary folder's own is long, the fork server's is elsewhere.

    multiprocessing makes its private directory at the first use, and removes it at the end.
    """
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST_PATH:
        return
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            tempfile.tempdir = folder
            try:
                util.get_temp_dir()
            finally:
                tempfile.tempdir = usual
            return


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Hide the main module while children start, or each would import the user's main script again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
