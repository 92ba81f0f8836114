"""Users' algorithms for independent servers, each part of which has the same gate: one that stops, keeps or drops."""

from __future__ import annotations

from tests.backends.stopping import Stopping, StoppingAhead
from tests.outside.fedbuff import FedBuff
from tests.outside.ringmaster import Ringmaster


class Stops(Stopping):
    """Stops work on old versions, of the first part."""

    one_server = False


class StopsAhead(StoppingAhead):
    """The same, with pushes and fetches in flight."""

    one_server = False


class Keeps(FedBuff):
    """Keeps pushes of each part until there are k."""

    one_server = False


class Drops(Ringmaster):
    """Drops pushes of each part that are older than `limit` versions of it."""

    one_server = False
