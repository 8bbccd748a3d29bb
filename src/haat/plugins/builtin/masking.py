"""Takes personal data out of requests and answers: what is found is replaced by its kind, as ``[EMAIL]``."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from haat.plugins.api import Answer, Configuration, Event, Plugin, Request, Service, hookimpl
from haat.plugins.builtin.personal import KINDS, find

Kind = Literal["email", "upi", "phone", "aadhaar", "pan", "gstin", "card", "ifsc", "account", "passport"]


class MaskingConfiguration(Configuration):
    """Whose calls are masked: those at a service of ``services``, and all of an application of ``applications``."""

    services: tuple[str, ...] = ()
    """``provider/service``; ``*`` stands for anything."""
    applications: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = KINDS  # type: ignore[assignment]  # the same words
    requests: bool = True
    answers: bool = True


class Masking(Plugin):
    """Masks before guards and caches look, so that nothing personal is kept or passed on."""

    summary = "Replace personal data in requests and answers by its kind, such as [EMAIL]"
    order = 350
    fails = "closed"
    slow_ms = 20.0
    Configuration = MaskingConfiguration

    def __init__(self, configuration: MaskingConfiguration) -> None:
        super().__init__(configuration)
        self._services = configuration.services
        self._applications = frozenset(configuration.applications)
        self._kinds = frozenset(configuration.kinds)
        self._requests, self._answers = configuration.requests, configuration.answers

    @hookimpl
    def haat_wants(self, service: Service) -> bool:
        return bool(self._applications) or self._covers(service)

    @hookimpl
    def haat_on_request(self, call: Request) -> None:
        if self._requests and self._concerns(call):
            call.rewrite(self.mask)

    @hookimpl
    def haat_on_response(self, call: Request, answer: Answer) -> None:
        if self._answers and self._concerns(call):
            answer.rewrite(self.mask)

    @hookimpl
    def haat_on_stream(self, call: Request, event: Event) -> None:
        if self._answers and self._concerns(call):
            event.rewrite(self.mask)

    def mask(self, text: str, key: str = "") -> str:
        """Return the text with every finding replaced by its kind; ``key`` is the name it stands under."""
        found = find(text, self._kinds, key)
        if not found:
            return text
        parts: list[str] = []
        at = 0
        for finding in found:
            parts += (text[at : finding.start], f"[{finding.kind.upper()}]")
            at = finding.end
        return "".join((*parts, text[at:]))

    def _concerns(self, call: Request) -> bool:
        return call.application in self._applications or self._covers(call.service)

    def _covers(self, service: Service) -> bool:
        return any(fnmatchcase(service.path, pattern) for pattern in self._services)
