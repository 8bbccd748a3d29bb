"""The end of a call at which its caller is: a connection, or the gateway itself for a stage of a pipeline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.kernel.errors import HaatError


class Client(ABC):
    """What all who work on a call may ask of it. ``active`` is the call being worked on."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.active: Call | None = None
        self.unconfirmed: list[Call] = []
        """Answers written whole whose bytes the kernel may not have taken yet."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Hand over the next bytes of the answer."""

    @abstractmethod
    def finished(self, call: Call) -> None:
        """The answer's last byte was handed over."""

    @abstractmethod
    def take_back(self, call: Call, error: HaatError) -> None:
        """Refuse a call whose answer is written and has not left."""

    @abstractmethod
    def abort(self) -> None:
        """Break off; what was not sent yet is dropped."""

    @property
    @abstractmethod
    def write_paused(self) -> bool:
        """Whether what was written waits to be taken."""

    @property
    @abstractmethod
    def takes_parts(self) -> bool:
        """Whether it can do something with an answer that is a stream of events."""

    @abstractmethod
    def drained(self) -> bool:
        """Tell whether everything written was taken."""

    @abstractmethod
    def drains(self, call: Call) -> bool:
        """Tell whether the rest of a refused request is small enough to be read, so that the caller can go on."""

    @abstractmethod
    def hold_reading(self) -> None:
        """Take no more of the request until what is here has gone on."""

    @abstractmethod
    def release_reading(self) -> None:
        """Take more again."""

    @abstractmethod
    def peer(self) -> str:
        """Return the caller's address, empty where there is none."""
