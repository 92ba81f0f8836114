"""A trial of live objects before the run that needs them: a process that is started here reads them, and says whether
it could.

Without it, the processes of a run would die one after another where they read their arguments, before they have a log.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection

from asgd_lab import interrupts, live_objects
from asgd_lab.backends.real import orphans, processes
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.base import one_line

_arrived: set[str] = set()  # names: an object that was changed has another


def check(scenario: Scenario) -> None:
    """A `ScenarioError` at the key of a live object that a process cannot read."""
    new = {key: each for key, each in live_objects.travelling(scenario).items() if each[0] not in _arrived}
    for key, each in new.items():
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = processes.start("arrival", main, (theirs, each))
        theirs.close()
        said = "it ends the process that reads it"
        try:
            with contextlib.suppress(EOFError):
                said = ours.recv()
        finally:
            ours.close()
            processes.end(process)
        if said:
            raise ScenarioError.at(key, f"{each[0]} cannot be read by the processes of a run: {said}")
        _arrived.add(each[0])


def main(line: Connection, sent: live_objects.Travelling) -> None:
    """The process of the trial: it answers with an error's line, or with an empty one."""
    orphans.follow_fork_server(signal.SIGKILL)
    interrupts.ignore()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        live_objects.receive({"": sent})
    except BaseException as error:
        line.send(one_line(error)[:300] or type(error).__name__)
    else:
        line.send("")
