"""The codecs that a scenario can name. `protocol.codecs` has their mathematics."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from asgd_lab.choices import Choice, Mappings, Unread
from asgd_lab.configuration import BareName
from asgd_lab.errors import ScenarioError
from asgd_lab.trust import refusal

if TYPE_CHECKING:
    from asgd_lab.protocol.codecs import Codec


class Compression(Choice):
    """A codec as a scenario states it. Each subclass has its keys, and builds the codec."""

    registry = "codecs"

    @abstractmethod
    def build(self) -> Codec:
        """The codec of one worker; the replica has its state."""


class Cast(Compression):
    """Sends each element of an update in two bytes."""

    name: Literal["cast"]
    """This codec's name."""
    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """The type: bfloat16 keeps 8 bits of the number and its full range, float16 keeps 11 bits, up to 65,504."""

    def build(self) -> Codec:
        import torch

        from asgd_lab.protocol import codecs

        return codecs.Cast(getattr(torch, self.dtype))


class UnreadCompression(Compression, Unread):
    """A codec whose code may not be imported."""

    def build(self) -> Codec:
        """Raise the error that the code is not trusted."""
        raise ScenarioError.at("algorithm.codec", refusal([("algorithm.codec", self.name)]))


CODECS = Mappings("codecs", Compression, (Cast,), UnreadCompression)
AnyCodec = Annotated[Compression, CODECS, BareName()]
