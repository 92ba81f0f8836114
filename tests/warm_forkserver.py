"""The process that warm programs are forked from: it has imported what a command may need, and has one thread.

`python warm_forkserver.py DESCRIPTOR`: the socket DESCRIPTOR has the requests of `tests.warm`, which says what for.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import signal
import socket
import sys
from collections.abc import Collection, Sequence
from multiprocessing import util
from pathlib import Path
from typing import Any

import asgd_lab

NOT_HERE = ("__main__", "fork_server")  # a program's first module; that of its fork server alone
LIBRARIES = ("torch._dynamo", "pyarrow.parquet", "pyarrow.pandas_compat")
FORK_SERVER = "multiprocessing.forkserver import main"
ABOVE = 100  # descriptors that are out of the way of those that a fork server is told


def load() -> None:
    """Import the package, and what else a program imports with its first run."""
    for module in pkgutil.walk_packages(asgd_lab.__path__, "asgd_lab."):
        if module.name.rpartition(".")[2] not in NOT_HERE:
            importlib.import_module(module.name)
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    names = [Path(task, "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    threads = [name for name in names if name != "jemalloc_bg_thd"]  # pyarrow's heap, which starts it anew after a fork
    assert len(threads) == 1, f"{threads}: a library's thread does not survive a fork"


def serve(line: socket.socket) -> None:
    """Answer requests for ever; return in a program's process."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(line, 1 << 20, 3)
        if not text:
            os._exit(0)
        try:
            between = os.fork()
        except OSError as error:
            between = -1
            line.send(str(error).encode())
        if not between:
            try:
                program = os.fork()
            except OSError as error:
                line.send(str(error).encode())
                os._exit(1)
            if program:
                line.send(str(program).encode())
                os._exit(0)  # the program's parent is the nearest subreaper from now on
            line.close()
            become(json.loads(text), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if between > 0:
            os.waitpid(between, 0)
        line.send(b"it is yours")


def become(asked: dict[str, Any], descriptors: Sequence[int]) -> None:
    """All that a new process has of its own, as `python -m asgd_lab` finds it."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if asked["session"]:
        os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    keep_a_fork_server()
    sys.argv = ["", *asked["arguments"]]
    sys.path.insert(0, os.getcwd())


def keep_a_fork_server() -> None:
    """Fork a child that waits until the program starts its fork server, which it then is; it ends with the program."""
    line, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    child = os.fork()
    if not child:
        line.close()
        for number in ending:
            signal.signal(number, signal.SIG_IGN)
        be_a_fork_server(its)
        sys.exit()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
    its.close()
    spawn = util.spawnv_passfds

    def spawned(path: bytes, arguments: Sequence[str], passed: Collection[int]) -> int:
        if line.fileno() < 0 or FORK_SERVER not in arguments[-1]:
            return spawn(path, arguments, passed)
        asked = {
            "code": arguments[-1],
            "numbers": list(passed),
            "environment": dict(os.environ),
            "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
            "ignored": [int(number) for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN],
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        }
        with line, contextlib.suppress(BrokenPipeError):
            socket.send_fds(line, [json.dumps(asked).encode()], list(passed))
            return child
        return spawn(path, arguments, passed)

    util.spawnv_passfds = spawned


def be_a_fork_server(line: socket.socket) -> None:
    """Wait for a request, and run it as `python -c` would in a process that has only what is passed to it."""
    text, received, _, _ = socket.recv_fds(line, 1 << 20, 8)
    if not text:
        os._exit(0)
    asked = json.loads(text)
    held = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, ABOVE) for descriptor in received]
    line.detach()
    os.closerange(3, ABOVE)
    for number, descriptor in zip(asked["numbers"], held, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, asked["files"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["-c"]
    sys.path[:0] = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each not in ("", *sys.path)]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in asked["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
    exec(asked["code"], {"__name__": "__main__"})


if __name__ == "__main__":
    del sys.path[0]  # this file's folder
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("asgd_lab", run_name="__main__", alter_sys=True)
