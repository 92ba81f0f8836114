"""Starts the fork server, from which all processes of a run are forked; it imports torch once and computes nothing.

Nothing here imports torch, so that whoever starts it first imports beside it and not before it. A fork after a parallel
torch operation would hang in the child: the fork server runs none.
"""

from __future__ import annotations

import signal
from multiprocessing import forkserver

# torch.optim imports torch._dynamo with its first optimizer, which takes seconds: once is enough.
MODULES = ["torch._dynamo", "asgd_lab.backends.process.worker", "asgd_lab.backends.process.server"]


def preload() -> None:
    """Start the fork server unless it runs. It is deaf to Ctrl-C, which is the parent's to hear."""
    forkserver.set_forkserver_preload(MODULES)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)
