"""What the guards of the house share: whose calls they look into, and how what they find there is replaced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from fnmatch import fnmatchcase

from haat.plugins.api import Answer, Configuration, Event, Plugin, Request, Service, hookimpl


class GuardConfiguration(Configuration):
    """Whose calls are guarded: those at a service of ``services``, and all of an application of ``applications``."""

    services: tuple[str, ...] = ()
    """``provider/service``; ``*`` stands for anything."""
    applications: tuple[str, ...] = ()
    requests: bool = True
    answers: bool = True


class Guard(Plugin, ABC):
    """Looks into the text of requests, of answers and of each event of a stream; calls don't pass without it."""

    fails = "closed"
    slow_ms = 20.0

    def __init__(self, configuration: GuardConfiguration) -> None:
        super().__init__(configuration)
        self._services = configuration.services
        self._applications = frozenset(configuration.applications)
        self._requests, self._answers = configuration.requests, configuration.answers

    @abstractmethod
    def find(self, text: str, key: str) -> Iterable[tuple[int, int, str]]:
        """Yield what is to be replaced, in order and apart: from where, to where, by what. May raise a refusal.

        ``key`` is the name that the text stands under.
        """

    @hookimpl
    def haat_wants(self, service: Service) -> bool:
        return bool(self._applications) or self._covers(service)

    @hookimpl
    def haat_on_request(self, call: Request) -> None:
        if self._requests and self._concerns(call):
            call.rewrite(self.change)

    @hookimpl
    def haat_on_response(self, call: Request, answer: Answer) -> None:
        if self._answers and self._concerns(call):
            answer.rewrite(self.change)

    @hookimpl
    def haat_on_stream(self, call: Request, event: Event) -> None:
        if self._answers and self._concerns(call):
            event.rewrite(self.change)

    def change(self, text: str, key: str = "") -> str:
        """Return the text with everything replaced that `find` yields; the same object where that is nothing."""
        parts: list[str] = []
        at = 0
        for start, end, instead in self.find(text, key):
            parts += (text[at:start], instead)
            at = end
        return "".join((*parts, text[at:])) if parts else text

    def _concerns(self, call: Request) -> bool:
        return call.application in self._applications or self._covers(call.service)

    def _covers(self, service: Service) -> bool:
        return any(fnmatchcase(service.path, pattern) for pattern in self._services)
