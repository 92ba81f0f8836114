"""Ringmaster ASGD without stops (Maranjyan et al. 2025, arXiv:2501.16168, Algorithm 4): old gradients are discarded."""

from asgd_lab import extending as lab


class Young(lab.Gate):
    limit: int

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.APPLY if server.version - push.base < self.limit else lab.drop(lab.Reason.STALE)


class Ringmaster(lab.Ruled):
    """x <- x - gamma g where the delay of g, in versions, is below `limit` (R); else g is dropped."""

    limit: int

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return lab.blocking(self, Young(self.limit), rule)
