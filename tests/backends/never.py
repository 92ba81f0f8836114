"""Gates that make no progress."""

from __future__ import annotations

from collections.abc import Iterable

from asgd_lab import extending as lab


class NoPush(lab.Gate):
    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.drop()


class Never(lab.Ruled):
    """Every push is dropped, and its minibatches are leased again."""

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return lab.blocking(self, NoPush(), rule)


class NoTime(lab.Gate):
    def stops(self, server: lab.View) -> Iterable[int]:
        return [each for each in server.owing if server.now_ns > server.member(each).lease_ns]

    def wake_ns(self, server: lab.View) -> int | None:
        return min((server.member(each).lease_ns + 1 for each in server.owing), default=None)


class Hasty(lab.Ruled):
    """Every lease is stopped as soon as it has begun."""

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return lab.blocking(self, NoTime(), rule)


class Shut(lab.Gate):
    """Grants no fetch any more after three versions."""

    holds_back = True

    def may_fetch(self, worker: int, server: lab.View) -> bool:
        return server.version < 3


class Waiting(lab.Ruled):
    """Its workers wait for ever."""

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return lab.blocking(self, Shut(), rule)
