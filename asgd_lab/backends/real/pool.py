"""A pool of processes that run one scenario after another: the death of one fails one run, and no more.

In the pool of `concurrent.futures` one death ends all work, and does not tell which process died and why. Here each
process has a connection to its parent and two threads: one runs; the other listens, and when the connection breaks (the
parent is dead, or cancels) it interrupts the first, which saves its recorded data and ends.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from asgd_lab import interrupts
from asgd_lab.backends.failing import logged
from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.real import arrival, orphans
from asgd_lab.backends.real.preload import POOL_MODULES, preload, without_main
from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed, ScenarioError, refusal
from asgd_lab.record.existing import abandoned
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.base import one_line
from asgd_lab.trust import trusting

PATIENCE_S = 30.0  # for runs that were told to stop

Word = Progress | dict[str, Any] | ScenarioError | RunFailed
"""A message about a run: its progress, or at its end its summary or its error."""


class Job(NamedTuple):
    """A scenario, the directory of its run, and whether all names of the scenario may be imported.

    With `restart`, the files of an earlier attempt at this run are removed first.
    """

    scenario: Scenario
    path: Path
    trusted: bool
    restart: bool = False
    point: str | None = None  # see `execute`


class Pool:
    """At most `most` processes inside a `with`; none of them is left when it ends.

    Leaving it early interrupts the current runs, and waits until they have saved their recorded data; a second Ctrl-C
    ends the wait. `on_interrupt` is called at its beginning.
    """

    def __init__(self, most: int, on_interrupt: Callable[[], None] = lambda: None) -> None:
        self._most, self._on_interrupt = most, on_interrupt
        self._context = multiprocessing.get_context("forkserver")
        self._lines: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Pool:
        preload(POOL_MODULES)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for line in self._lines:
                line.close()
            if kind is KeyboardInterrupt:
                self._on_interrupt()  # it announces the effect of a second Ctrl-C, which works from here on
            until = time.monotonic() + PATIENCE_S
            for process in self._lines.values():
                process.join(max(0.0, until - time.monotonic()))
        finally:
            for process in self._lines.values():
                process.kill()
                process.join()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[int, Word]]:
        """Run all jobs, as processes come free; yield each message with the number of its job.

        A job's first message is its progress before it starts.
        """
        waiting = iter(enumerate(jobs))
        working: dict[Connection, tuple[int, Job]] = {}
        while True:
            idle = [line for line in self._lines if line not in working]
            while len(working) < self._most and (numbered := next(waiting, None)) is not None:
                arrival.check(numbered[1].scenario)
                line = idle.pop() if idle else self._start()
                working[line] = numbered
                with contextlib.suppress(OSError):  # it has just died; this is detected below
                    line.send(numbered[1])
                yield numbered[0], Progress(0.0, 0, 0, -1)
            if not working:
                return
            for line in [line for line in connection.wait(list(working)) if isinstance(line, Connection)]:
                number, job = working[line]
                word = self._hear(line, job)
                if not isinstance(word, Progress):
                    del working[line]
                yield number, word

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=main, args=(theirs, tuple(sys.path)), name="pool")
        with without_main():
            process.start()
        theirs.close()
        self._lines[ours] = process
        return ours

    def _hear(self, line: Connection, job: Job) -> Word:
        try:
            word: Word | KeyboardInterrupt = line.recv()
        except (EOFError, OSError):
            process = self._lines.pop(line)
            line.close()
            process.join()
            code = process.exitcode or 0
            cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            failure = f"its process {cause}"
            abandoned(job.path, failure)
            return RunFailed(failure)
        if isinstance(word, KeyboardInterrupt):
            interrupts.note_limit()
            raise word
        return word


def main(line: Connection, path: Sequence[str] = ()) -> None:
    """A process of the pool, with the parent's module search path. Only the parent handles Ctrl-C; it breaks the
    connection.
    """
    sys.path += [folder for folder in path if folder not in sys.path]  # a job names classes of the user's modules
    orphans.follow_fork_server(signal.SIGCONT)  # a stopped process wakes, and finds the connection broken
    interrupts.ignore()
    jobs: SimpleQueue[Job | None] = SimpleQueue()
    try:
        threading.Thread(target=_listen, args=(line, jobs), daemon=True).start()
    except RuntimeError as error:
        with contextlib.suppress(OSError):
            line.send(RunFailed(refusal(error) or str(error)))
        return
    # Only a run is interrupted: elsewhere a destructor might be interrupted, which would swallow it.
    with contextlib.suppress(KeyboardInterrupt, OSError):
        while (job := jobs.get()) is not None:
            signal.signal(signal.SIGTERM, _interrupt)
            interrupts.heed_limit()
            try:
                if not jobs.empty():  # the connection broke before the listener could interrupt anything
                    return
                word = _run(job, line)
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                interrupts.ignore_limit()
            line.send(word)
            gc.collect()  # the run has left reference cycles


def _interrupt(*_: object) -> None:
    """Interrupt a run once: a signal to all processes may come again by the parent while the run saves its data."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _listen(line: Connection, jobs: SimpleQueue[Job | None]) -> None:
    runner = threading.main_thread().ident
    assert runner is not None
    try:
        while True:
            jobs.put(line.recv())
    except (EOFError, OSError):
        pass
    finally:
        jobs.put(None)  # there are no more jobs
        signal.pthread_kill(runner, signal.SIGTERM)


def _run(job: Job, line: Connection) -> Word | KeyboardInterrupt:
    def watch(progress: Progress) -> None:
        with contextlib.suppress(OSError):  # the listener handles a broken connection
            line.send(progress)

    try:
        with trusting(job.trusted):
            summary = execute(job.scenario, job.path, watch, restart=job.restart, point=job.point)
    except (ScenarioError, RunFailed) as error:
        return error
    except Exception as error:
        failure = RunFailed(one_line(error))
        failure.__cause__ = error
        return RunFailed(logged(job.path, failure))
    if summary["status"] == "done":
        return summary
    return KeyboardInterrupt() if interrupts.cause() else RunFailed("its process was told to end")
