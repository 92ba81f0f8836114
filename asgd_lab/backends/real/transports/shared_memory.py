"""The transport on one node: vectors in shared memory, messages over sockets, staging for workers on GPUs."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import torch
from torch import Tensor

from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.transport import ServerEnd, Switchboard, WorkerEnd
from asgd_lab.backends.real.transports.memory import Buffer, Stack
from asgd_lab.backends.real.transports.shared_tensors import SharedTensors
from asgd_lab.backends.real.transports.sockets import ServerPlace, SocketEnd, Sockets, SocketsEnd
from asgd_lab.backends.real.transports.staged import Staged


class SharedMemory:
    """The shared memory of a run: buffers for versions (slot 0 the initial one), `depth` mailboxes per worker, two of
    each of the rule's `states` and `scalars`, `copies` of updates, the data set, and the progress words. If the workers
    train in one `shared` vector, there is slot 0 alone.
    """

    def __init__(
        self, workers: int, size: int, *, depth: int = 1, shared: bool = False, states: int = 0,
        scalars: int = 0, copies: int = 0, tensors: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.workers, self.depth = workers, depth
        self._slots = Stack("asgd-lab-versions", 1 if shared else workers + 2, size)
        self._mailboxes = Stack("asgd-lab-mailboxes", workers * depth, 0 if shared else size)
        self._states = Stack("asgd-lab-states", 2 * states, size)
        self._scalars = Stack("asgd-lab-scalars", 2 * scalars, 2)  # of float64, which is two of float32
        self._copies = Stack("asgd-lab-copies", copies, size)
        self._data = SharedTensors(dict(tensors or {}))
        self._buffer = Buffer("asgd-lab-progress", Words.size_bytes(workers))
        self.words = Words(workers, self._buffer.map(writable=True))

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "words"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self.words = Words(self.workers, self._buffer.map(writable=True))

    def slot(self, index: int, writable: bool = False) -> Tensor:
        """(P,) for a version, as in `Memory`."""
        return self._slots.vector(index, writable)

    def state(self, index: int) -> Tensor:
        """(P,) as in `Memory`."""
        return self._states.vector(index, writable=True)

    def scalar(self, index: int) -> Tensor:
        """() as in `Memory`."""
        return self._scalars.vector(index, writable=True).view(torch.float64)[0]

    def copy(self, index: int) -> Tensor:
        """(P,) as in `Memory`."""
        return self._copies.vector(index, writable=True)

    def mailbox(self, worker: int, buffer: int, writable: bool = False) -> Tensor:
        """(P,) likewise; its worker writes it."""
        return self._mailboxes.vector(worker * self.depth + buffer, writable)

    def tensors(self) -> dict[str, Tensor]:
        """The data set, read only."""
        return self._data.tensors()

    def worker_end(
        self, worker: int, place: socket.socket, staged: torch.device | None = None, overlaps: bool = False
    ) -> WorkerEnd:
        """A worker's end, in its process; vectors are `staged` to and from that device, beside minibatches if it
        `overlaps`.
        """
        end = SocketEnd(self, worker, place)
        if staged is None:
            return end
        size = self._slots.length
        return Staged(end, staged, size, lambda slot: self.slot(slot, writable=True), overlaps, self.words.of(worker))

    def server_end(self, place: ServerPlace, precise: bool = False) -> ServerEnd:
        """The server's end, in its process; a `precise` one wakes on time, not up to a millisecond later."""
        return SocketsEnd(self, self.words, place, precise)

    def switchboard(self) -> Switchboard:
        """The supervisor's side, in the program."""
        return Sockets()

    def close(self) -> None:
        """Close this process's descriptors; mappings stay."""
        for each in (self._slots, self._mailboxes, self._states, self._scalars, self._copies, self._data, self._buffer):
            each.close()
