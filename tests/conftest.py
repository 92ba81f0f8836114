"""What every test shares: one torch thread, and hypothesis profiles without wall-clock deadlines."""

from __future__ import annotations

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("lab", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("lab")
