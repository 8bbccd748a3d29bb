"""How languages are called and marked up on a page: in their own script, and in the reader's words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from haat.catalog.model import Listing, Version
from haat.language import ENGLISH, LANGUAGES, SCRIPTS, Tag, parse_tag
from haat.language.formats import date_locale
from haat.language.messages import _, spoken


@dataclass(frozen=True, slots=True)
class LanguageName:
    """A language in its own script, how to mark it up, and its name in the reader's language."""

    tag: str
    own: str
    name: str
    direction: str

    @property
    def romanised(self) -> bool:
        """Whether an Indian language is written in Latin letters here."""
        return self.tag.endswith("-Latn") and not self.tag.startswith("en")


def language(text: str) -> LanguageName:
    """Return how to show a BCP-47 tag; one outside the market's languages is shown as it is."""
    return _language(text, spoken())


@lru_cache(maxsize=2048)
def _language(text: str, reader: Tag) -> LanguageName:
    try:
        tag = parse_tag(text)
    except ValueError:
        return LanguageName(text, text, text, "ltr")
    name = _name_for(reader, tag)
    own = name if tag.script == "Latn" and tag.language != "en" else tag.own_name
    return LanguageName(str(tag), own, name, tag.direction)


def _name_for(reader: Tag, tag: Tag) -> str:
    """Return a language's name in the reader's, as CLDR has it; where it has none, in English."""
    names = {} if reader == ENGLISH else date_locale(reader).languages
    name: str = names.get(tag.language, LANGUAGES[tag.language].name)
    if tag.script == LANGUAGES[tag.language].scripts[0]:
        return name
    if tag.script == "Latn":
        return _("%(language)s in Latin letters", language=name)
    scripts = {} if reader == ENGLISH else date_locale(reader).scripts
    return f"{name} ({scripts.get(tag.script, SCRIPTS[tag.script].name)})"


def languages_of(listing: Listing | Version) -> list[LanguageName]:
    """Return every language of a listing or version once, pairs taken apart, in the provider's order."""
    tags = [*listing.languages, *(tag for pair in listing.language_pairs for tag in pair.split(">"))]
    return [language(tag) for tag in dict.fromkeys(tags)]
