"""A model, data, a loss and an optimizer of one's own, for bring-your-own.yaml: a sine wave, learned from samples."""

import torch


class Plain(torch.optim.SGD):
    """Any subclass of torch.optim.Optimizer will do."""


def data(samples: int = 1000) -> dict[str, torch.Tensor]:
    """Inputs, and what is to be made of them."""
    x = torch.linspace(-3, 3, samples).view(-1, 1)
    return {"train_images": x, "train_labels": x.sin(), "test_images": x + 0.001, "test_labels": (x + 0.001).sin()}


def model(num_classes: int, width: int = 32) -> torch.nn.Module:
    """The outputs have as many numbers as a label."""
    return torch.nn.Sequential(torch.nn.Linear(1, width), torch.nn.Tanh(), torch.nn.Linear(width, num_classes))


def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over a minibatch."""
    return torch.nn.functional.mse_loss(outputs, labels)
