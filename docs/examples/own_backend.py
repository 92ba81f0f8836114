"""A backend of one's own: as inline, but the next worker is drawn at random, so that no order of arrival is special."""

import random
from collections.abc import Iterator

from asgd_lab.backends import inline
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.errors import RunFailed
from asgd_lab.record.run import RunDirectory
from asgd_lab.scenario import Scenario
from asgd_lab.scenario.executions import InlineExecution


class Drawn(InlineExecution):
    """Facts and refusals are those of inline: one process, no clock."""

    runs = f"{__name__}:run"


def run(scenario: Scenario, record: RunDirectory, watch: Watch | None = None) -> Outcome:
    def order(world: inline.Inline) -> Iterator[int]:
        drawn = random.Random(scenario.seed)
        while world.workers:
            if not world.ready:
                raise RunFailed("deadlock: every worker waits")
            yield drawn.choice(sorted(world.ready))

    return inline.run(scenario, record, watch, order)
