"""The server's parameters: versions in slots, of which none that anybody still reads is ever written.

A step goes from the current slot and an update into a blank slot; committing it is one assignment. A fetch *pins* the
slot it was granted until the worker fetches again or leaves, so a center needs no copy and cannot be torn. W workers
pin at most W slots, the current one and the blank one make W + 2: memory that W private copies would need as well.
P is the length of the flat vector.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from asgd_lab.protocol.messages import PushRequest
from asgd_lab.protocol.rules import Rule, Workspace


class Parameters:
    """The versions, the rule that makes the next one, and the rule's state.

    The backend owns the memory: `slot(i)` gives that of slot i, `state(i)` that of the rule's i-th vector, of two for
    each that it keeps, `kept(i)` that of the i-th copy of an update; `mailboxes[w]` is the update that worker w pushed
    last. While `counting`, a step only keeps the books: the versions have been made already, by a server that is gone,
    and lie in the slots.
    """

    def __init__(
        self,
        initial: Tensor,
        rule: Rule,
        mailboxes: Mapping[int, Tensor],
        slot: Callable[[int], Tensor] | None = None,
        state: Callable[[int], Tensor] | None = None,
        counting: bool = False,
        kept: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.counting = counting
        self._slot = slot or (lambda _: torch.empty_like(initial))
        state = state or (lambda _: torch.zeros_like(initial))
        self._kept = kept or functools.cache(lambda _: torch.empty_like(initial))
        self._rule, self._mailboxes = rule, mailboxes
        self._slots: list[Tensor] = []
        self._readers: list[int] = []
        self._free: list[int] = []
        self._pinned: dict[int, int] = {}
        self._workspace = Workspace()
        self.state, self._fresh = ([state(2 * index + side) for index in range(rule.states)] for side in range(2))
        self._current = self._blank()
        if not counting:
            self.current.copy_(initial)

    @property
    def current(self) -> Tensor:
        """(P,) the newest version; read only, and only until the next step."""
        return self._slots[self._current]

    def pin(self, worker: int) -> int:
        """Keep the newest version for `worker`, in place of the one it held; its slot."""
        self.unpin(worker)
        self._pinned[worker] = slot = self._current
        self._readers[slot] += 1
        return slot

    def unpin(self, worker: int) -> None:
        """Let go of what `worker` holds, if it holds anything."""
        slot = self._pinned.pop(worker, None)
        if slot is not None:
            self._readers[slot] -= 1
            self._recycle(slot)

    def pinned(self, worker: int) -> int:
        """The number of the slot that `worker` holds."""
        return self._pinned[worker]

    def moved(self, worker: int) -> float:
        """The Euclidean norm of what has been added since the version that `worker` holds."""
        return float(torch.dist(self.current, self._slots[self._pinned[worker]]))

    def vector(self, slot: int) -> Tensor:
        """(P,) the memory of a slot; read only."""
        return self._slots[slot]

    def keep(self, worker: int, copy: int) -> None:
        """Copy the update in a worker's mailbox, to be merged later."""
        if not self.counting:
            self._kept(copy).copy_(self._mailboxes[worker])

    def step(self, pushes: Sequence[PushRequest], copies: Sequence[int] = ()) -> None:
        """Make the next version from the updates of `pushes`, summed in the order given.

        Each lies in its worker's mailbox, or in the copy of that number where `copies` has one (from 0).
        """
        blank, current = self._blank(), self._current
        if not self.counting:
            copies = copies or (-1,) * len(pushes)
            self._make(
                blank,
                pushes,
                [
                    self._mailboxes[push.worker] if copy < 0 else self._kept(copy)
                    for push, copy in zip(pushes, copies, strict=True)
                ],
            )
        self._current = blank
        self.state, self._fresh = self._fresh, self.state
        self._recycle(current)

    def _make(self, blank: int, pushes: Sequence[PushRequest], updates: Sequence[Tensor]) -> None:
        workspace = self._workspace
        workspace.out = self._slots[blank]
        total = updates[0]
        if len(updates) > 1:
            total = torch.add(total, updates[1], out=workspace.scratch())
            for update in updates[2:]:
                total.add_(update)
        vector, alpha = self._rule.step((total, 1.0), len(pushes), self.state, self._fresh, workspace)
        torch.add(self.current, vector, alpha=alpha, out=workspace.out)

    def _blank(self) -> int:
        if not self._free:
            self._slots.append(self._slot(len(self._slots)))
            self._readers.append(0)
            return len(self._slots) - 1
        return self._free.pop()

    def _recycle(self, slot: int) -> None:
        if not self._readers[slot] and slot != self._current:
            self._free.append(slot)
