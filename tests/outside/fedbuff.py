"""FedBuff (Nguyen et al. 2022, Algorithm 1), weighted by staleness: K arrivals make a version, and nobody waits."""

from asgd_lab import extending as lab


class Buffer(lab.Gate):
    keeps: int
    collects = True

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.KEEP

    def complete(self, server: lab.View) -> bool:
        return len(server.kept) == self.keeps


class FedBuff(lab.Ruled):
    """x <- x + rule(sum over k arrivals of (1 + staleness)^-p delta / k)."""

    k: int
    p: float = 0.5
    collects = True

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        weigh = lab.weighing("fedbuff", lambda context: (1 + context.staleness) ** -self.p / self.k)
        return lab.blocking(self, Buffer(self.k), lab.chain(weigh, rule))
