"""The network of Krizhevsky, Sutskever and Hinton 2012 ("ImageNet Classification with Deep Convolutional Neural
Networks", NIPS), as it was trained on two GPUs: 60,965,224 parameters with 1,000 classes.

Choices where the paper is silent or at odds with itself:

- Its images of 224 by 224 do not give the 55 by 55 of its first layer at stride 4; two pixels of padding do.
- Response normalisation divides by (2 + 1e-4 * sum of 5 neighbours' squares) ** 0.75 (section 3.3 gives k, n, alpha and
  beta); torch divides its alpha by n, hence 5e-4.
- The mean image and the components of colour come from 1,000 training images, or from
  `dataset_options.statistics_samples` of them, and not from all 1.3 million.
- torch's SGD multiplies the velocity by the current rate; the paper's velocity (section 5) contains the rates at which
  it was accumulated. After each division of the rate the two differ for a few tens of steps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn


def krizhevsky(shape: Sequence[int], num_classes: int, dropout: float = 0.5) -> nn.Module:
    """The network, from images (B, 3, 224, 224) to (B, classes); other sides work if they leave a pixel at the end.

    Weights are drawn from a normal distribution of deviation 0.01; biases of the second, fourth and fifth convolution
    and of the hidden full connections are 1, the others 0 (section 5).
    """
    channels, height, width = shape

    def convolution(inputs: int, outputs: int, kernel: int, groups: int = 1, bias: float = 0.0) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
        return [_drawn(layer, bias), nn.ReLU()]

    def normalised() -> list[nn.Module]:
        return [nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0), nn.MaxPool2d(3, stride=2)]

    def side(pixels: int) -> int:
        pixels = (pixels + 4 - 11) // 4 + 1
        for _ in range(3):
            pixels = (pixels - 3) // 2 + 1
        return pixels

    features = 256 * side(height) * side(width)
    return nn.Sequential(
        OrderedDict(
            convolutions=nn.Sequential(
                _drawn(nn.Conv2d(channels, 96, 11, stride=4, padding=2), 0.0), nn.ReLU(), *normalised(),
                *convolution(96, 256, 5, groups=2, bias=1.0), *normalised(),
                *convolution(256, 384, 3),
                *convolution(384, 384, 3, groups=2, bias=1.0),
                *convolution(384, 256, 3, groups=2, bias=1.0), nn.MaxPool2d(3, stride=2),
            ),
            connections=nn.Sequential(
                nn.Flatten(),
                _drawn(nn.Linear(features, 4096), 1.0), nn.ReLU(), nn.Dropout(dropout),
                _drawn(nn.Linear(4096, 4096), 1.0), nn.ReLU(), nn.Dropout(dropout),
                _drawn(nn.Linear(4096, num_classes), 0.0),
            ),
        )
    )  # fmt: skip


def _drawn(layer: nn.Conv2d | nn.Linear, bias: float) -> nn.Module:
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
    return layer
