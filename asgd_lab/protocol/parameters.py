"""The server's parameters: versions in slots; a slot that has a reader is never written.

A step goes from the current slot and an update into a blank slot; committing it is one assignment. A fetch *pins* its
granted slot until the worker fetches again or leaves, so a center needs no copy and cannot be torn. W workers pin at
most W slots, and with the current and the blank one there are W + 2, the memory of W private copies and two more.
P is the length of the flat vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.messages import ALL, PushRequest
from asgd_lab.protocol.rules import Context, Rule, Scaled, Workspace, chain


class Memory:
    """The memory of the server's tensors: private memory, unless a backend overrides it.

    Each tensor is requested once, by a number from 0 on.
    """

    def __init__(self, initial: Tensor) -> None:
        self._like = initial

    def slot(self, number: int) -> Tensor:
        """(P,) memory for a version."""
        return torch.empty_like(self._like)

    def state(self, number: int) -> Tensor:
        """(P,) zeros for a state vector of the rule; two per vector."""
        return torch.zeros_like(self._like)

    def scalar(self, number: int) -> Tensor:
        """() float64 zero for a state scalar of the rule; two per scalar."""
        return torch.zeros((), dtype=torch.float64)

    def copy(self, number: int) -> Tensor:
        """(P,) memory for a copy of a kept update."""
        return torch.empty_like(self._like)


class Parameters:
    """The versions, the rule that makes the next one, and the rule's state.

    `mailboxes[w]` is the last pushed update of worker w. While `counting`, a step only counts: an earlier server made
    these versions already, and they are in memory.
    """

    def __init__(
        self,
        initial: Tensor,
        rule: Rule,
        mailboxes: Mapping[int, Tensor],
        memory: Memory | None = None,
        counting: bool = False,
    ) -> None:
        self.counting = counting
        self._memory = memory or Memory(initial)
        self._copies: dict[int, Tensor] = {}
        self._rule = rule = chain(rule) if rule.on_each else rule
        self._each, self._mailboxes, self._needs_center = rule.each, mailboxes, rule.needs_center
        self._version = 0
        self._slots: list[Tensor] = []
        self._readers: list[int] = []
        self._free: list[int] = []
        self._pinned: dict[int, int] = {}
        self._workspace = Workspace()
        self._accumulator: Tensor | None = None
        self.state, self._fresh = (self._tensors(rule, side) for side in range(2))
        self._workers: dict[int, tuple[list[Tensor], list[Tensor]]] = {}  # state, and the fresh one, of `each`
        self._current = self._blank()
        if not counting:
            self.current.copy_(initial)

    @property
    def current(self) -> Tensor:
        """(P,) the newest version; read only, and only until the next step."""
        return self._slots[self._current]

    def pin(self, worker: int) -> int:
        """Pin the newest version for `worker`, and unpin its earlier one; return the slot."""
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
        """The number of the slot that `worker` has pinned."""
        return self._pinned[worker]

    def moved(self, worker: int) -> float:
        """The Euclidean distance between the newest version and the one that `worker` has pinned."""
        return float(torch.dist(self.current, self._slots[self._pinned[worker]]))

    @property
    def parts(self) -> list[Parameters]:
        """Itself: they are one part."""
        return [self]

    def vector(self, slot: int, part: int = ALL) -> Tensor:
        """(P,) the memory of a slot; read only."""
        return self._slots[slot]

    def keep(self, push: PushRequest, copy: int) -> None:
        """Copy an update from its worker's mailbox, to be merged later; links on each push act on it now."""
        if copy not in self._copies:
            self._copies[copy] = self._memory.copy(copy)
        if not self.counting:
            self._workspace.out = self._copies[copy]
            vector, alpha = self._of_each(push)
            torch.mul(vector, alpha, out=self._copies[copy])
        self._commit(push)

    def step(self, pushes: Sequence[PushRequest], copies: Sequence[int] = ()) -> None:
        """Make the next version from the updates of `pushes`, summed in the order given.

        Each lies in its worker's mailbox, or in the copy of that number where `copies` has one (from 0).
        """
        blank, current = self._blank(), self._current
        if not self.counting:
            self._workspace.out = self._slots[blank]
            context = Context(self._version, pushes, self.current, self._center)
            total = self._total(pushes, copies)
            vector, alpha = self._rule.step(total, context, self.state, self._fresh, self._workspace)
            if self._rule.yields != "parameters":
                torch.add(self.current, vector, alpha=alpha, out=self._workspace.out)
        if self._each is not None:
            for index, push in enumerate(pushes):
                if not copies or copies[index] < 0:
                    self._commit(push)
        self._version += 1
        self._current = blank
        self.state, self._fresh = self._fresh, self.state
        self._recycle(current)

    def tensors(self) -> dict[str, Tensor]:
        """The content of a checkpoint, by name: all tensors that the next step depends on, except mailboxes."""
        found = {"params": self.current}
        found |= {f"state.{index}": each for index, each in enumerate(self.state)}
        for worker, (state, _) in self._workers.items():
            found |= {f"state.worker-{worker}.{index}": each for index, each in enumerate(state)}
        return found | {f"copy.{number}": each for number, each in self._copies.items()}

    def _total(self, pushes: Sequence[PushRequest], copies: Sequence[int]) -> Scaled:
        """The sum of the updates."""
        if self._each is None and not copies:
            total = self._mailboxes[pushes[0].worker]
            if len(pushes) > 1:
                total = torch.add(total, self._mailboxes[pushes[1].worker], out=self._workspace.scratch())
                for push in pushes[2:]:
                    total.add_(self._mailboxes[push.worker])
            return total, 1.0
        updates = (
            (self._copies[copy], 1.0) if copy >= 0 else self._of_each(push)
            for push, copy in zip(pushes, copies or (-1,) * len(pushes), strict=True)
        )
        vector, alpha = next(updates)
        if len(pushes) == 1:
            return vector, alpha
        if self._accumulator is None:
            self._accumulator = torch.empty_like(vector)
        torch.mul(vector, alpha, out=self._accumulator)
        for vector, alpha in updates:
            self._accumulator.add_(vector, alpha=alpha)
        return self._accumulator, 1.0

    def _of_each(self, push: PushRequest) -> Scaled:
        """One update after the links on each push; their state is not committed."""
        update = self._mailboxes[push.worker], 1.0
        if self._each is None:
            return update
        context = Context(self._version, (push,), self.current, self._center)
        return self._each.step(update, context, *self._of_worker(push.worker), self._workspace)

    def _commit(self, push: PushRequest) -> None:
        if self._each is not None:
            state, fresh = self._of_worker(push.worker)
            self._workers[push.worker] = fresh, state

    def _of_worker(self, worker: int) -> tuple[list[Tensor], list[Tensor]]:
        """The worker's state of the links on each push, and the memory for the next state."""
        if worker not in self._workers:
            assert self._each is not None
            rule, each = self._rule, self._each
            first = rule.states + worker * each.states, rule.scalars + worker * each.scalars
            state, fresh = (self._tensors(each, side, *first) for side in range(2))
            self._workers[worker] = state, fresh
        return self._workers[worker]

    def _tensors(self, rule: Rule, side: int, states: int = 0, scalars: int = 0) -> list[Tensor]:
        """One of the two sets of state tensors of a rule, with numbers from `states` and `scalars` on."""
        memory = self._memory
        return [
            *(memory.state(2 * (states + index) + side) for index in range(rule.states)),
            *(memory.scalar(2 * (scalars + index) + side) for index in range(rule.scalars)),
        ]

    def _center(self, worker: int) -> Tensor:
        if not self._needs_center:
            raise ProtocolError("a rule that reads a worker's center must say so: needs_center=True")
        return self._slots[self._pinned[worker]]

    def _blank(self) -> int:
        if not self._free:
            self._slots.append(self._memory.slot(len(self._slots)))
            self._readers.append(0)
            return len(self._slots) - 1
        return self._free.pop()

    def _recycle(self, slot: int) -> None:
        if not self._readers[slot] and slot != self._current:
            self._free.append(slot)
