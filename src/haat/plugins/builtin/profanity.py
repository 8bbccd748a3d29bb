"""Guards against abusive words in requests and answers: refuses them, or puts stars in their place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from haat.kernel.errors import ContentRefused
from haat.language.text import count_graphemes
from haat.plugins.builtin.guard import Guard, GuardConfiguration
from haat.plugins.builtin.lexicon import LANGUAGES, Lexicon

Language = Literal["bn", "en", "hi", "mr", "ta", "te", "ur"]


class ProfanityConfiguration(GuardConfiguration):
    """Whose calls are guarded, with which lists, and what is done about a find."""

    languages: tuple[Language, ...] = LANGUAGES  # type: ignore[assignment]  # the same words
    files: tuple[Path, ...] = ()
    """Lists of the operator's own: a word or phrase a line, UTF-8, ``#`` begins a comment."""
    allow: tuple[str, ...] = ()
    """Words that are let pass although a list has them."""
    action: Literal["refuse", "mask"] = "refuse"


class Profanity(Guard):
    """Reads the lists once, when it is switched on."""

    summary = "Refuse abusive words in requests and answers, or put stars in their place"
    order = 360
    after = ("masking",)
    Configuration = ProfanityConfiguration

    def __init__(self, configuration: ProfanityConfiguration) -> None:
        super().__init__(configuration)
        self._lexicon = Lexicon.of(configuration.languages, configuration.files, configuration.allow)
        self._refuses = configuration.action == "refuse"

    def find(self, text: str, key: str) -> Iterator[tuple[int, int, str]]:
        """Yield what is listed with its stars; raise ContentRefused instead where the guard refuses."""
        for hit in self._lexicon.find(text):
            if self._refuses:
                raise ContentRefused("The text holds a word that is not let through here.", language=hit.language)
            yield hit.start, hit.end, "*" * count_graphemes(text[hit.start : hit.end])
