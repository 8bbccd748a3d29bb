"""The interface's own texts in the reader's language: gettext catalogs, and who is being spoken to.

A text stands in the code in English and is its own key: ``_("%(count)s calls", count=…)``. Each other language has a
catalog, ``haat/locales/{language}.po``, written by people and read as it is. What a catalog lacks comes from the next
language of the reader's `fallback_chain`, English last.

Whose language it is belongs to the task that serves the reader: `speak` sets it for the task, `speaking` for a block.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from gettext import GNUTranslations, NullTranslations
from importlib import resources
from typing import TYPE_CHECKING, Any

from haat.language.fallback import ENGLISH, fallback_chain
from haat.language.tags import LANGUAGES, Tag

if TYPE_CHECKING:
    from babel.messages import Catalog

INTERFACE = tuple(language.tag for language in LANGUAGES.values())
"""The languages of the interface, each in its usual script."""


@dataclass(slots=True)
class _Reader:
    """Who is spoken to, and whether they were given a text in another language than theirs."""

    tag: Tag
    borrowed: bool = False


_reader: ContextVar[_Reader] = ContextVar("reader")


def speak(tag: Tag) -> None:
    """Speak a language from now on in this task."""
    _reader.set(_Reader(tag))


def spoken() -> Tag:
    """Return the language in which the reader of this task is spoken to; English when nobody chose."""
    reader = _reader.get(None)
    return ENGLISH if reader is None else reader.tag


def borrowed() -> bool:
    """Tell whether the reader was given a text that their language lacks, since `speak`."""
    reader = _reader.get(None)
    return reader is not None and reader.borrowed


@contextlib.contextmanager
def speaking(tag: Tag) -> Iterator[None]:
    """Speak a language inside the block."""
    before = _reader.set(_Reader(tag))
    try:
        yield
    finally:
        _reader.reset(before)


def gettext(message: str) -> str:
    """Return a text in the reader's language, its places not filled in; an empty one stays empty."""
    if not message:  # which gettext takes for the catalog's header
        return message
    return translations(spoken()).gettext(message)


def told(sentence: str) -> str:
    """Return a sentence that was put together elsewhere: in the reader's language if it is marked, and else as it is.

    It may be in their language already, so what isn't found is not taken for borrowed.
    """
    reader = _reader.get(None)
    before = reader is not None and reader.borrowed
    found = gettext(sentence)
    if reader is not None and found == sentence:
        reader.borrowed = before
    return found


def ngettext(one: str, many: str, count: int) -> str:
    """Return the form of a text that a number asks for, its places not filled in."""
    return translations(spoken()).ngettext(one, many, count)


def _(message: str, /, **values: Any) -> str:
    """Return a text in the reader's language, with ``%(name)s`` filled in."""
    return gettext(message) % values


def _n(one: str, many: str, count: int, /, **values: Any) -> str:
    """Return the form of a text that ``count`` asks for, with ``%(name)s`` filled in; ``%(count)s`` is the number."""
    return ngettext(one, many, count) % {"count": count, **values}


def N_(message: str) -> str:
    """Mark a text that is translated where it is used."""
    return message


def NN_(one: str, many: str) -> tuple[str, str]:
    """Mark the two forms of a text that a number asks for, translated where it is used."""
    return one, many


class _Neighbour(NullTranslations):
    """Stands behind a language's own texts: what is asked of it is borrowed."""

    def gettext(self, message: str) -> str:
        self._note()
        return super().gettext(message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        self._note()
        return super().ngettext(msgid1, msgid2, n)

    def _note(self) -> None:
        reader = _reader.get(None)
        if reader is not None:
            reader.borrowed = True


@lru_cache(maxsize=len(LANGUAGES) * 2)
def translations(tag: Tag) -> NullTranslations:
    """Return the texts of a language, with the rest of its chain behind them.

    The first time takes a good part of a second for each catalog: `prepare` has that done in a thread.
    """
    own, *others = [_translations(one) for one in fallback_chain(tag)]
    first = found = own or _Neighbour()
    if tag == ENGLISH:
        return NullTranslations()
    if own is not None:
        found.add_fallback(neighbour := _Neighbour())
        found = neighbour
    for other in filter(None, others):
        found.add_fallback(other)
        found = other
    return first


async def prepare(tag: Tag) -> None:
    """Have a language's texts at hand, read in a thread the first time."""
    if tag not in _prepared:
        await asyncio.to_thread(translations, tag)
        _prepared.add(tag)


_prepared: set[Tag] = {ENGLISH}


def is_translated(string: str | Sequence[str] | None) -> bool:
    """Tell whether a message of a catalog has a text in every form it needs."""
    return bool(string) and all(string or ())


def catalog_of(tag: Tag) -> Catalog | None:
    """Return the catalog of a language in its usual script; None where there is none, as for English."""
    from babel.messages.pofile import read_po

    if tag not in INTERFACE:
        return None
    file = resources.files("haat").joinpath("locales", f"{tag.language}.po")
    if not file.is_file():
        return None
    return read_po(io.BytesIO(file.read_bytes()), locale=None, abort_invalid=True)


def _translations(tag: Tag) -> GNUTranslations | None:
    from babel.messages.mofile import write_mo

    catalog = catalog_of(tag)
    if catalog is None:
        return None
    for message in list(catalog):
        if message.id and not is_translated(message.string):  # Babel would write the English one for each plural form
            catalog.delete(message.id)
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return GNUTranslations(compiled)
