"""An algorithm of one's own: rounds of 1, 2, 4, ... minibatches, up to n_sync."""

from asgd_lab import extending as lab


class Doubling(lab.Gate):
    most: int

    def lease(self, worker: int, server: lab.View) -> int:
        """The minibatches that go with a grant. `clock` counts the rounds that the worker has pushed."""
        return min(self.most, 2 ** min(server.member(worker).clock, 30))


class Growing(lab.Ruled):
    """Synchronises often while gradients still change much, and seldom later: H_r = min(n_sync, 2^r) in round r."""

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return lab.blocking(self, Doubling(self.n_sync), rule)
