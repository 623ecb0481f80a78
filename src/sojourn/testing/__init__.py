"""For the tests of applications and of Sojourn itself: time that stands still, memory instead of sockets, raw clients.

:class:`MemoryServer` serves an application without a socket and without waiting: the test moves the clock. The raw
clients speak to any server on a real socket and show every byte. Nothing here depends on a test framework.
"""

from sojourn.clock import ManualClock
from sojourn.testing.channel import Address, Channel
from sojourn.testing.faults import FaultProxy, Toxic
from sojourn.testing.http import Outcome, Response, parse_response
from sojourn.testing.memory import Ended, MemoryPeer, MemoryTransport
from sojourn.testing.raw import Frame, RawHttp, RawWebSocket
from sojourn.testing.server import MemoryClient, MemoryServer

__all__ = [
    "Address",
    "Channel",
    "Ended",
    "FaultProxy",
    "Frame",
    "ManualClock",
    "MemoryClient",
    "MemoryPeer",
    "MemoryServer",
    "MemoryTransport",
    "Outcome",
    "RawHttp",
    "RawWebSocket",
    "Response",
    "Toxic",
    "parse_response",
]
