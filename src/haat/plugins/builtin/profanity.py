"""Guards against abusive words in requests and answers: refuses them, or puts stars in their place."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from haat.kernel.errors import ContentRefused
from haat.language.text import count_graphemes
from haat.plugins.api import Answer, Configuration, Event, Plugin, Request, Service, hookimpl
from haat.plugins.builtin.lexicon import LANGUAGES, Lexicon

Language = Literal["bn", "en", "hi", "mr", "ta", "te", "ur"]


class ProfanityConfiguration(Configuration):
    """Whose calls are guarded, with which lists, and what is done about a find."""

    services: tuple[str, ...] = ()
    """``provider/service``; ``*`` stands for anything."""
    applications: tuple[str, ...] = ()
    languages: tuple[Language, ...] = LANGUAGES  # type: ignore[assignment]  # the same words
    files: tuple[Path, ...] = ()
    """Lists of the operator's own: a word or phrase a line, UTF-8, ``#`` begins a comment."""
    allow: tuple[str, ...] = ()
    """Words that are let pass although a list has them."""
    action: Literal["refuse", "mask"] = "refuse"
    requests: bool = True
    answers: bool = True


class Profanity(Plugin):
    """Reads the lists once, when it is switched on."""

    summary = "Refuse abusive words in requests and answers, or put stars in their place"
    order = 360
    after = ("masking",)
    fails = "closed"
    slow_ms = 20.0
    Configuration = ProfanityConfiguration

    def __init__(self, configuration: ProfanityConfiguration) -> None:
        super().__init__(configuration)
        self._services = configuration.services
        self._applications = frozenset(configuration.applications)
        self._lexicon = Lexicon.of(configuration.languages, configuration.files, configuration.allow)
        self._refuses = configuration.action == "refuse"
        self._requests, self._answers = configuration.requests, configuration.answers

    @hookimpl
    def haat_wants(self, service: Service) -> bool:
        return bool(self._applications) or self._covers(service)

    @hookimpl
    def haat_on_request(self, call: Request) -> None:
        if self._requests and self._concerns(call):
            call.rewrite(self.check)

    @hookimpl
    def haat_on_response(self, call: Request, answer: Answer) -> None:
        if self._answers and self._concerns(call):
            answer.rewrite(self.check)

    @hookimpl
    def haat_on_stream(self, call: Request, event: Event) -> None:
        if self._answers and self._concerns(call):
            event.rewrite(self.check)

    def check(self, text: str, key: str = "") -> str:
        """Return the text with stars for what is listed; raise ContentRefused instead where the guard refuses."""
        parts: list[str] = []
        at = 0
        for hit in self._lexicon.find(text):
            if self._refuses:
                raise ContentRefused("The text holds a word that is not let through here.", language=hit.language)
            parts += (text[at : hit.start], "*" * count_graphemes(text[hit.start : hit.end]))
            at = hit.end
        return "".join((*parts, text[at:])) if parts else text

    def _concerns(self, call: Request) -> bool:
        return call.application in self._applications or self._covers(call.service)

    def _covers(self, service: Service) -> bool:
        return any(fnmatchcase(service.path, pattern) for pattern in self._services)
