"""A task's data on the devices of its learners: moved once per device, for all replicas there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from asgd_lab.tasks.base import CPU, Data
from asgd_lab.tasks.feeds import Source, source_of
from asgd_lab.tasks.samples import labels_of

# Suffixes of tensors that minibatches index or compute with; files stay on the host.
_MOVED = ("_images", "_members", "_labels", "standard")


@final
class DeviceData:
    """The data as loaded, and copies on other devices."""

    def __init__(self, data: Data, options: Mapping[str, Any]) -> None:
        self.host, self._options = data, options
        self._copies: dict[torch.device, Data] = {CPU: data}
        self._sources: dict[torch.device, Source] = {}

    @property
    def bytes(self) -> int:
        """Bytes of a copy on another device."""
        return sum(tensor.nbytes for part, tensor in self.host.items() if part.endswith(_MOVED))

    def on(self, device: torch.device) -> Data:
        """The tensors that minibatches index, on that device."""
        if device not in self._copies:
            self._copies[device] = {
                part: tensor.to(device) for part, tensor in self.host.items() if part.endswith(_MOVED)
            }
        return self._copies[device]

    def labels(self, split: str, index: Tensor) -> Tensor:
        """The labels (B, ...) of these samples (B,), on the device of the index."""
        return labels_of(self.on(index.device)[f"{split}_labels"], index)

    def source(self, device: torch.device) -> Source:
        """The source of inputs for minibatches on that device."""
        if device not in self._sources:
            of_files = "train_files" in self.host
            self._sources[device] = source_of(self.host if of_files else self.on(device), self._options, device)
        return self._sources[device]
