"""A streaming average of fragments (Douillard et al. 2025, arXiv:2501.18512, Algorithm 2) against global anchors."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from asgd_lab import extending as lab


class AllTogether(lab.Gate):
    collects = True

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.HOLD

    def complete(self, server: lab.View) -> bool:
        return len(server.kept) >= len(server.members)


class Streaming(lab.Ruled):
    """A fragment is pushed every n_sync minibatches; `delay` later, own <- alpha own + (1 - alpha) global."""

    parts: int = 2
    delay: int = 1
    alpha: float = 0.5
    collects = True

    def refuses(self, scenario: Any) -> Iterator[tuple[str, str]]:
        if self.delay >= self.n_sync:
            yield "algorithm.delay", f"must be below n_sync, which is {self.n_sync}"

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        said = lab.blocking(self, AllTogether(), rule)
        return replace(said, program=self.program, vectors=lab.Anchored, parts=self.parts)

    def program(self, replica: lab.Replica) -> lab.Program:
        train, places = lab.Train(replica), replica.parts
        pushes = [lab.PushEffect(replica, part=part) for part in range(self.parts)]
        fetches = [lab.Fetch(replica, part, lease=False) for part in range(self.parts)]
        yield lab.Fetch(replica)
        replica.adopt()
        while replica.granted:
            replica.steps = replica.granted  # of which the merge of the last fragment has left so many
            yield train
            part = min(range(self.parts), key=lambda part: places[part].version)
            replica.measure(part)
            yield from (lab.Start(pushes[part]), lab.Start(fetches[part]), lab.lease(replica))
            replica.steps = min(self.delay, replica.granted)
            yield train
            yield from (lab.Wait(pushes[part]), lab.Wait(fetches[part]))
            replica.merge(part, own=self.alpha, center=1 - self.alpha)
            if not replica.granted and any(place.unpushed for place in places):  # the budget is used up
                for part in (part for part, place in enumerate(places) if place.unpushed):
                    replica.measure(part)
                    yield pushes[part]
                yield lab.lease(replica)
