from torch import nn

import asgd_lab


def narrow(num_classes: int) -> nn.Module:
    """A network for images of 8 x 8 pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))


run = asgd_lab.run("first.yaml", {"task.model": narrow, "sweep": None}, out="runs/narrow")
print("test error:", run.summary["final"]["test_error"])
assert run.summary["final"]["test_error"] < 0.3
