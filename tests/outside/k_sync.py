"""K-sync SGD (Dutta et al. 2018, section 2): the first K pushes make a version, others are dropped."""

from asgd_lab import extending as lab


class FirstK(lab.Gate):
    k: int
    collects = True

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.HOLD if push.base == server.version else lab.drop(lab.Reason.LATE)

    def complete(self, server: lab.View) -> bool:
        return len(server.kept) >= min(self.k, len(server.members))


class KSync(lab.Ruled):
    """x <- x + rule(sum of the first k of M updates from x); an update from an earlier x is dropped."""

    k: int
    collects = True

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return lab.blocking(self, FirstK(self.k), rule)
