"""`python -m asgd_lab` as a process of its own, without the seconds in which it imports torch.

Such a program is forked from a process that has imported everything (`warm_forkserver`), which each process of the
tests starts once. It has its own session, folder, environment, streams and fork server, and is a child of the test.
What a test says of Python's start, of limits that hold from the first moment, or of what is imported, is none of its
business: such tests start the program themselves.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
MOST_S = 240  # for the fork server's imports on a busy machine
AT_START = ("PYTHON", "LD_", "LC_", "LANG", "OMP_", "OPENBLAS_", "MKL_", "HOME")  # variables that are read only then


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_START)}


ENVIRONMENT = _at_start(os.environ)


@functools.cache
def _server() -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    file = Path(__file__).with_name("warm_forkserver.py")
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP")}
    server = subprocess.Popen(
        [sys.executable, file, str(its.fileno())], pass_fds=[its.fileno()], start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT, **threads},
    )  # fmt: skip
    its.close()
    ours.settimeout(MOST_S)
    atexit.register(_end, server, ours)
    return ours


def _end(server: subprocess.Popen[bytes], line: socket.socket) -> None:
    line.close()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:  # a descendant of this process has the line too
        server.kill()
        server.wait()


def _adopt(orphans: bool) -> None:
    """Whether this process is the parent of descendants whose own parents end."""
    done = ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0)
    assert done == 0, os.strerror(ctypes.get_errno())


class Program(subprocess.Popen[str]):
    """A process in which only its start is another than that of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str | Path], **how: Any) -> None:
        super().__init__([sys.executable, "-m", "asgd_lab", *map(str, arguments)], **how)

    def _execute_child(
        self, args: list[str], executable: None, preexec_fn: None, close_fds: bool, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: None, creationflags: int, shell: bool, *more: Any,
    ) -> None:  # fmt: skip
        pipes, (_, _, _, _, _, session, *_) = more[:6], more[6:]
        environment = dict(os.environ if env is None else env)
        assert preexec_fn is None
        assert can_have(environment)
        asked = {
            "arguments": args[3:],
            "folder": os.path.abspath(cwd or os.curdir),
            "environment": environment,
            "session": session,
        }
        its = [own if own >= 0 else number for number, own in enumerate((pipes[0], pipes[3], pipes[5]))]
        line = _server()
        _adopt(True)
        try:
            socket.send_fds(line, [json.dumps(asked).encode()], its)
            number = line.recv(64)
            line.recv(64)
        except BaseException:  # answers to this request would be taken for those to the next one
            line.close()
            _server.cache_clear()
            raise
        finally:
            _adopt(False)
        assert number.isdigit(), f"the fork server has made no process: {number!r}"
        self.pid = int(number)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def can_have(environment: Mapping[str, str]) -> bool:
    """Whether a warm program can have this environment: it differs from the tests' only in what is read later on."""
    return _at_start(environment) == ENVIRONMENT


def run(arguments: Sequence[str | Path], **how: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with captured text."""
    with Program(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how) as program:
        out, err = program.communicate()
    return subprocess.CompletedProcess(program.args, program.returncode, out, err)
