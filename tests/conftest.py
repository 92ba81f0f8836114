"""What every test shares: one torch thread, hypothesis profiles without wall-clock deadlines, and Ctrl-C.

A shell that runs `make test &` in a script has its children ignore Ctrl-C, and the programs that tests start and
interrupt would inherit that.
"""

from __future__ import annotations

import signal

import hypothesis
import torch

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
hypothesis.settings.register_profile("lab", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("lab")
