"""Starts the fork server, from which all our processes are forked; it imports torch once and computes nothing.

This file does not import torch, so that the program's own imports run in parallel with the fork server's. A fork after
a parallel torch operation would hang in the child: the fork server runs no torch operation.
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
POOL_MODULES = [  # the further modules of whole runs
    *("torch._dynamo", "asgd_lab.backends.real.pool", "asgd_lab.backends.sim", "asgd_lab.backends.inline"),
    *("pyarrow.parquet", "pyarrow.pandas_compat"),
]
FIRST = "asgd_lab.backends.real.fork_server"
LONGEST_PATH = 70  # of a temporary folder, so that a socket's path still fits


def preload(modules: Sequence[str] = MODULES) -> None:
    """Start the fork server unless it runs. It ignores signals that end a run, which the parent handles."""
    forkserver.set_forkserver_preload([FIRST, *modules])
    _raise_limit()
    _make_short_directory()
    with interrupts.held(), _safe_path():
        resource_tracker.ensure_running()
    with interrupts.held(), _safe_path():  # again: starting the other lets signals through
        forkserver.ensure_running()


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Programs started inside import nothing from the current directory, which may be a stranger's folder.

    multiprocessing starts its servers with `python -c`, which would search there first, even for `signal`. And it does
    not pass our module search path to them (before 3.12.8 and 3.13.1): they would not find this package in a plain
    tree.
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
    """The folder of this package, unless it is one of installed packages."""
    folder = Path(asgd_lab.__file__).resolve().parents[1]
    return None if folder.name in ("site-packages", "dist-packages") else str(folder)


def _raise_limit() -> None:
    """Raise the limit of open files as far as allowed: each worker needs some. Children inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _make_short_directory() -> None:
    """Choose a folder for the fork server's socket if the temporary folder's path is long: 107 bytes are the limit.

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
