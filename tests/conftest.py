"""What every test shares: one torch thread, hypothesis profiles without wall-clock deadlines, and Ctrl-C.

A shell that runs `make test &` in a script has its children ignore Ctrl-C, and the programs that tests start and
interrupt would inherit that.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

import hypothesis
import torch

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="asgd-lab-tests-")  # the key that records are signed by
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
hypothesis.settings.register_profile("lab", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("lab")
