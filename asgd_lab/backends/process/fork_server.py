"""What the fork server does first: nobody else imports this file.

Signals that end a run are the program's to hear. If the program ends, the fork server ends as well, also if it is
stopped just then, and removes its socket; and its children end with it.
"""

from __future__ import annotations

import atexit
import os
import signal

from asgd_lab import interrupts
from asgd_lab.backends.process import orphans

_PROCESS = os.getpid()


def _end() -> None:
    if os.getpid() == _PROCESS:
        orphans.remove_socket()


interrupts.ignore()
orphans.follow_parent(signal.SIGCONT)
atexit.register(_end)
