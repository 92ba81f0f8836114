"""Dynamic local updates (Liu et al. 2024, arXiv:2401.09135, section 5): a worker's local steps go by its speed."""

from asgd_lab import extending as lab


class BySpeed(lab.Gate):
    needs_clock = True

    def lease(self, worker: int, server: lab.View) -> int:
        own, fastest = server.member(worker).speed, max(server.member(each).speed for each in server.members)
        return max(1, int(server.n_fetch * own / fastest)) if own else server.n_fetch


class DyLU(lab.Ruled):
    """H_w = max(1, floor(n_sync v_w / max v)), v_w the minibatches a second of w's last round."""

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return lab.blocking(self, BySpeed(), rule)
