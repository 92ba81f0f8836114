"""Progress words: a few shared 8-byte words that show the progress of processes to others, without messages.

Each word has one writer. Readers may see a word a moment late, never half-written.
"""

from __future__ import annotations

import math
from time import monotonic_ns as now_ns
from typing import Any

import numpy as np

from asgd_lab.backends.outcome import Progress, WorkerLook

SERVER_WORDS = 16
WORKER_WORDS = 16  # two cache lines


class Words:
    """The words, as numpy arrays; the server process writes `server`, worker w writes `worker[w]`, and the parent
    writes `slower[w]`: the factor by which a fault slows down worker w, if above 1.
    """

    STOP, START_NS, VERSION, MINIBATCHES, STALENESS, _, LIMIT_NS, FINISHED = range(8)  # word 5 the training error
    SERVED_NS, SERVED_STATED_NS = 8, 9  # the same of an emulated server's requests
    HEARD_NS, LONGEST_SERVICE_NS = 10, 11  # the time of the server's next sign of life, and its longest request
    STEPS, OVERRUNS, STATE = range(3)  # of a worker; STATE is an index into STATES, word 3 the loss
    SHOWN, LONGEST = 4, 5  # its last sign of life, and its longest minibatch, in nanoseconds
    LIVES, TRAINED_NS = 6, 7  # its incarnation, and the nanoseconds of all incarnations in minibatches
    STALE = 8  # the server's: the staleness of its last applied push
    # Nanoseconds of emulated minibatches and links: taken, and stated.
    STEPPED_NS, STEPS_STATED_NS, WAYS_NS, WAYS_STATED_NS = 9, 10, 11, 12
    STOPPED = 15  # the server's: the lease that it stopped last in this life
    REGISTERED, BUFFERED = 13, 14  # shared vectors that its GPU copies directly, and those copied through a buffer
    STATES = ("starting", "fetching", "training", "pushing", "left")
    TRAINING = STATES.index("training")

    def __init__(self, workers: int, memory: Any = None) -> None:
        """In `memory` of `size_bytes`, all zero at first; None: this process's own."""
        words = np.frombuffer(bytearray(self.size_bytes(workers)) if memory is None else memory, np.int64)
        self.slower = words[SERVER_WORDS + workers * WORKER_WORDS :][:workers].view(np.float64)
        self.server = words[:SERVER_WORDS]
        self.worker = words[SERVER_WORDS:][: workers * WORKER_WORDS].reshape(workers, WORKER_WORDS)
        self.training_error = self.server[5:6].view(np.float64)
        self.loss = self.worker[:, 3:4].view(np.float64)

    @staticmethod
    def size_bytes(workers: int) -> int:
        """The bytes of the words of a run with so many workers."""
        return 8 * (SERVER_WORDS + workers * (WORKER_WORDS + 1))

    def of(self, worker: int) -> memoryview[int]:
        """A worker's words as a memoryview, three times as fast as numpy."""
        return memoryview(self.worker[worker].data)

    def of_server(self) -> memoryview[int]:
        """The server's words as a memoryview."""
        return memoryview(self.server.data)


def progress(progress: Words) -> Progress:
    """A look at the run, for whoever watches it."""
    start_ns = int(progress.server[Words.START_NS])
    now = now_ns() - start_ns if start_ns else 0
    losses = progress.loss[:, 0][progress.worker[:, Words.TRAINED_NS] > 0]  # written when a round's training has ended
    learned = bool(progress.server[Words.MINIBATCHES])
    return Progress(
        seconds=now * 1e-9,
        version=int(progress.server[Words.VERSION]),
        minibatches=int(progress.server[Words.MINIBATCHES]),
        staleness=int(progress.server[Words.STALENESS]) if learned else -1,
        loss=float(np.mean(losses)) if len(losses) else math.nan,
        error=float(progress.training_error[0]) if learned else math.nan,
        workers=[_look(words, now) for words in progress.worker.tolist()],
    )


def _look(words: list[int], now: int) -> WorkerLook:
    """One worker, whose words these are; before its first minibatch it has not trained, but started."""
    trained = words[Words.TRAINED_NS] / now if now else 0.0
    return WorkerLook(
        Words.STATES[words[Words.STATE]],
        words[Words.STEPS],
        words[Words.STALE],
        max(0.0, 1.0 - trained),
        max(0, words[Words.LIVES] - 1),
    )
