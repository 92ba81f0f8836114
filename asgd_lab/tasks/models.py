"""Networks by name, ours, torchvision's or the user's: each maps images (B, C, H, W) to one tensor (B, classes).

A user's own network may have any inputs and outputs that fit its data and its loss.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from asgd_lab.errors import ScenarioError, among, meant
from asgd_lab.tasks.base import check_free_memory, one_line
from asgd_lab.tasks.code_imports import imported, untrusted_weights
from asgd_lab.tasks.krizhevsky import krizhevsky
from asgd_lab.tasks.python_state import modes_of
from asgd_lab.tasks.torchvision_import import torchvision
from asgd_lab.trust import refusal


def mlp(shape: Sequence[int], num_classes: int, hidden: Sequence[int] = (128,)) -> nn.Module:
    """Pixels or columns, hidden layers of these widths with ReLU, classes."""
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(shape)
    for units in hidden:
        layers += [nn.Linear(features, units), nn.ReLU()]
        features = units
    return nn.Sequential(*layers, nn.Linear(features, num_classes))


def lenet(shape: Sequence[int], num_classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU, max pooling and full connections; 61,706 parameters on 28 by 28 pixels.

    Images of 32 by 32 are its own size. Smaller ones are padded, and below 20 pixels so is its second convolution.
    """
    channels, height, width = shape
    side = min(height, width)
    first, second = (0 if side >= 32 else 2), (0 if side >= 20 else 2)

    def after(pixels: int) -> int:
        return ((pixels + 2 * first - 4) // 2 + 2 * second - 4) // 2

    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 5, padding=first), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5, padding=second), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(16 * after(height) * after(width), 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes)),
    )


def small(shape: Sequence[int], num_classes: int, channels: Sequence[int] = (8, 16)) -> nn.Module:
    """Two convolutions of 3 by 3 with ReLU and max pooling, and classes: enough for 14 by 14 pixels."""
    features, height, width = shape
    layers: list[nn.Module] = []
    for count in channels:
        layers += [nn.Conv2d(features, count, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        features, height, width = count, height // 2, width // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features * height * width, num_classes))


class ThreeChannels(nn.Module):
    """Grey images for a network that wants colour: the one channel three times."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The network's outputs for images (B, 1, H, W), expanded to (B, 3, H, W)."""
        outputs: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return outputs


OURS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "lenet": lenet, "small": small, "krizhevsky": krizhevsky}


def build(name: str, options: Mapping[str, Any], shape: Sequence[int], num_classes: int) -> nn.Module:
    """The network, initialised from the default generator and `prepared`; every failure is a `ScenarioError`."""
    if weights := untrusted_weights(options):
        raise ScenarioError.at(weights[0][0], refusal(weights))
    if ":" in name:
        factory = imported("task.model", name, "a factory takes num_classes and returns a torch.nn.Module")
        if isinstance(factory, nn.Module):
            raise _error(f"{name} is a module itself; give its class, or a function that makes it anew for each run")
    elif name in OURS:
        factory = functools.partial(OURS[name], shape)
    else:
        factory = _torchvisions(name, shape)
    check_options("task.model_options", name, factory, options)
    if ":" not in name:
        _check_size(name, factory, num_classes, options)
    try:
        model = factory(num_classes=num_classes, **options)
    except Exception as error:
        raise _error(f"{name} raised {one_line(error)}") from error
    return prepared(name, model)


def prepared(name: str, model: Any) -> nn.Module:
    """A model as a user's code returns it, ready to train; a `ScenarioError` if it is of no kind that can be trained.

    It is in training mode, except layers that were put into evaluation mode while the model was in training mode.
    """
    if not isinstance(model, nn.Module):
        raise _error(f"{name} returned {type(model).__name__}; it must return a torch.nn.Module")
    try:
        frozen = [module for module, training in modes_of(model) if not training] if model.training else []
        model.train()  # a model may override train(), and it may change layers
        for module in frozen:
            module.eval()
        _check(name, model)
    except ScenarioError:
        raise
    except Exception as error:  # of a method that the model overrides
        raise _error(f"{name} returned a module that cannot be trained: {one_line(error)}") from error
    return model


def _check_size(name: str, factory: Callable[..., nn.Module], num_classes: int, options: Mapping[str, Any]) -> None:
    """A `ScenarioError` if its parameters exceed the free memory; they are counted without memory of their own."""
    try:
        with torch.device("meta"):
            size_bytes = sum(each.nbytes for each in factory(num_classes=num_classes, **options).parameters())
    except Exception:  # the same error is raised again, and reported, when the model is built
        return
    check_free_memory("task.model_options", f"make {name} too large: its parameters take", size_bytes)


def _error(message: str) -> ScenarioError:
    return ScenarioError.at("task.model", message)


def _torchvisions(name: str, shape: Sequence[int]) -> Callable[..., nn.Module]:
    models = torchvision().models
    names = models.list_models(module=models)
    if name not in names:
        hint = meant(name, [*OURS, *names])
        allowed = f"{', '.join(OURS)}, a classification model of torchvision such as resnet18, package.module:factory"
        raise _error(f"unknown model '{name}'{hint or ';'} allowed: {allowed}")

    def factory(**options: Any) -> nn.Module:
        network: nn.Module = models.get_model(name, **options)
        return ThreeChannels(network) if shape[0] == 1 else network

    return factory


def check_options(key: str, name: str, factory: Callable[..., nn.Module], options: Mapping[str, Any]) -> None:
    """A `ScenarioError` for an unknown option, if the factory's signature lists all of them."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    allowed = [each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY and each.name != "num_classes"]
    for each in options:
        if each not in allowed:
            message = f"{name} takes no '{each}'{among(each, allowed)}"
            raise ScenarioError.at(f"{key}.{each}", message)


def _check(name: str, model: nn.Module) -> None:
    """Checks of a model that need no minibatch."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise _error(f"{name} has no parameters to train")
    for label, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise _error(f"{name} leaves the shape of its parameter {label} open; all must be known at construction")
        if parameter.dtype != torch.float32:
            raise _error(f"{name} has a parameter {label} of {parameter.dtype}; all must be torch.float32")
    for label, each in (*model.named_parameters(), *model.named_buffers()):
        if each.is_meta:
            raise _error(f"{name} has no memory for its {label}, which is on the device meta; make it on the CPU")
    for label, buffer in model.named_buffers():
        if buffer.layout != torch.strided:
            raise _error(f"{name} has a buffer {label} of {buffer.layout}; buffers must be dense, or plain attributes")
