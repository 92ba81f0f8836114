"""Ringmaster ASGD with stops (Maranjyan et al. 2025, arXiv:2501.16168, Algorithm 5): too old work begins anew."""

from collections.abc import Iterable

from asgd_lab import extending as lab


class Stopping(lab.Gate):
    limit: int

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        """A push that was under way when its worker was stopped comes too late."""
        return lab.APPLY if server.version - push.base < self.limit else lab.drop(lab.Reason.STALE)

    def stops(self, server: lab.View) -> Iterable[int]:
        """Work whose delay has reached the limit can only be dropped."""
        return [each for each in server.owing if server.version - server.member(each).lease_version >= self.limit]


class RingmasterStops(lab.Ruled):
    """As Ringmaster without stops, but a worker whose gradient would be dropped is stopped, and fetches again."""

    limit: int

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return lab.blocking(self, Stopping(self.limit), rule)
