"""The limits of a node on the processes of a real run, checked before any is started; no torch is imported here."""

from __future__ import annotations

import resource

from asgd_lab import live_objects
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import Scenario

MOST_WORKERS = 240  # the server needs a descriptor per worker, and a fork server passes 256 at most
_OPEN_FILES = 32  # of the parent, beside those of a socket, a process and its start for each worker


def check(scenario: Scenario) -> None:
    """A `ScenarioError` before the start if this node cannot run the scenario."""
    if scenario.workers > MOST_WORKERS:
        message = f"the process backend starts at most {MOST_WORKERS} workers; for {scenario.workers} use backend sim"
        raise ScenarioError.at("workers", message)
    needed, (_, most) = _OPEN_FILES + 3 * scenario.workers, resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and needed > most:
        message = (
            f"{scenario.workers:,} processes need about {needed} open files, and {most} are allowed "
            "(ulimit -Hn); use fewer workers, or raise the limit"
        )
        raise ScenarioError.at("workers", message)
    if scenario.backend.device == "cuda":
        from asgd_lab.backends import devices

        devices.check(scenario)
    if live_objects.travelling(scenario):
        from asgd_lab.backends.real import arrival

        arrival.check(scenario)
