"""Named entities by rules and short lists: what is written by a pattern, and names that a list has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.models.hosted import HostedService, Item, Output, Units
from haat.plugins.builtin.lexicon import Lexicon
from haat.providers.akshara import gazetteer as known
from haat.providers.companies import AKSHARA

_TOKEN = regex.compile(r"[\p{L}\p{M}\p{N}\u200c\u200d_]+|[^\s\p{L}\p{M}\p{N}\u200c\u200d_]")
_LETTER = r"[\p{L}\p{M}\p{N}_]"
_BEGIN, _END = rf"(?<!{_LETTER})", rf"(?!{_LETTER})"
_NUMBER = r"(?<!\p{Nd}[.,:/])\p{Nd}{1,15}(?:,\p{Nd}{2,3}){0,6}(?:\.\p{Nd}{1,9})?(?![.,:/]?\p{Nd})"


@dataclass(frozen=True, slots=True)
class Entity:
    """What stands at code points ``start`` up to but not including ``end``."""

    start: int
    end: int
    label: str


def _any(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(regex.escape(word) for word in sorted(words, key=len, reverse=True))})"


Check = Callable[[Any], bool]


def _always(_: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Rule:
    label: str
    pattern: Any
    check: Check = _always


def _rule(label: str, pattern: str, check: Check = _always, *, case: bool = False) -> _Rule:
    return _Rule(label, regex.compile(pattern, 0 if case else regex.IGNORECASE), check)


def _is_date(match: Any) -> bool:
    first, second, third = (int(match[name]) for name in ("a", "b", "c"))
    day_first = 1 <= first <= 31 and 1 <= second <= 12
    month_first = 1 <= first <= 12 and 1 <= second <= 31
    year_first = len(match["a"]) == 4 and 1 <= second <= 12 and 1 <= third <= 31
    return year_first or (len(match["a"]) <= 2 and (day_first or month_first))


@lru_cache(maxsize=1)
def _rules() -> tuple[_Rule, ...]:
    """Return the rules, those that win where two meet first."""
    scale = rf"(?:\s?{_any(known.SCALES)})?"
    month, lone = rf"(?:{_any(known.MONTHS)}|{_any(known.SHORT_MONTHS)}\.?)", _any(known.LONE_MONTHS)
    day = r"\p{Nd}{1,2}(?:st|nd|rd|th)?"
    figures = r"(?P<a>\p{Nd}{1,4})(?P<s>[/.-])(?P<b>\p{Nd}{1,2})(?P=s)(?P<c>\p{Nd}{2,4})"
    clock = r"\p{Nd}{1,2}:[0-5०-५]\p{Nd}(?::[0-5०-५]\p{Nd})?"
    part = r"(?:(?:सुबह|दोपहर|शाम|रात)\s(?:के\s)?)?(?:(?:साढ़े|सवा|पौने)\s)?"
    name = r"\p{Lu}[\p{L}\p{M}'’-]{0,40}"
    latin = rf"{_BEGIN}{_any(known.LATIN_TITLES)}\.?\s(?:\p{{Lu}}\.\s?){{0,3}}{name}(?:\s{name}){{0,2}}"
    return (
        _rule("EMAIL", r"(?<![\w.%+-])[\w%+-][\w.%+-]{0,63}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"),
        _rule("URL", rf"{_BEGIN}(?:https?://|www\.)[^\s<>\"'।]{{1,2000}}[^\s<>\"'।.,;:!?)\]]"),
        _rule("MONEY", rf"(?<!{_LETTER}){_any(known.CURRENCY_SIGNS)}\s?{_NUMBER}{scale}{_END}"),
        _rule("MONEY", rf"(?<!{_LETTER}){_NUMBER}{scale}\s?{_any(known.CURRENCIES)}{_END}"),
        _rule("PHONE", rf"(?<![\p{{L}}\p{{M}}\p{{Nd}}+])\+\p{{Nd}}{{1,3}}(?:[\s-]?\p{{Nd}}){{7,12}}{_END}"),
        _rule("PHONE", rf"{_BEGIN}0?[6-9६-९]\p{{Nd}}{{4}}[\s-]?\p{{Nd}}{{5}}{_END}"),
        _rule("PHONE", rf"{_BEGIN}0\p{{Nd}}{{2,4}}[\s-]\p{{Nd}}{{6,8}}{_END}"),
        _rule("DATE", rf"{_BEGIN}{figures}{_END}", _is_date),
        _rule("DATE", rf"{_BEGIN}{day}(?:\sof)?\s{month}(?:,?\s\p{{Nd}}{{4}})?{_END}"),
        _rule("DATE", rf"{_BEGIN}{month}\s(?:{day}(?:,?\s\p{{Nd}}{{4}})?|\p{{Nd}}{{4}}){_END}"),
        _rule("TIME", rf"{_BEGIN}{part}{clock}(?:\s?(?:[ap]m|[ap]\.m\.|बजे))?{_END}"),
        _rule("TIME", rf"{_BEGIN}\p{{Nd}}{{1,2}}\s?(?:[ap]m|[ap]\.m\.|o['’]clock){_END}"),
        _rule("TIME", rf"{_BEGIN}{_any(known.ENGLISH_HOURS)}\so['’]clock{_END}"),
        _rule("TIME", rf"{_BEGIN}{part}(?:\p{{Nd}}{{1,2}}|{_any(known.HINDI_HOURS)})\sबजे{_END}"),
        _rule("QUANTITY", rf"{_BEGIN}{_NUMBER}{scale}[\s-]?{_any(known.UNITS)}{_END}"),
        _rule("PERSON", latin, case=True),
        _rule("DATE", rf"{_BEGIN}{_any(known.WEEKDAYS)}{_END}"),
        _rule("DATE", rf"{_BEGIN}{lone}{_END}", case=True),
        _rule("DATE", rf"{_BEGIN}{_any(known.DAYS)}{_END}"),
        _rule("NUMBER", rf"(?<!{_LETTER}){_NUMBER}{scale}{_END}"),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _places() -> Lexicon:
    return Lexicon([("LOCATION", known.places())])


_HINDI_TITLE = regex.compile(rf"{_BEGIN}{_any(known.HINDI_TITLES)}\.?[ \t]+(?=\p{{Devanagari}})")
_HINDI_NAME = regex.compile(r"[\p{Devanagari}\u200c\u200d--[।॥\p{Nd}]]{2,40}", regex.V1)


def _hindi_persons(text: str) -> Iterator[Entity]:
    """Yield a title and up to two words that can be a name: Devanagari has no capitals to tell one by."""
    for title in _HINDI_TITLE.finditer(text):
        end, at = 0, title.end()
        for _ in range(2):
            name = _HINDI_NAME.match(text, at)
            if name is None or name[0] in known.NO_NAMES:
                break
            end = name.end()
            at = end + 1 if text[end : end + 1] == " " else len(text)
        if end:
            yield Entity(title.start(), end, "PERSON")


def _candidates(text: str) -> Iterator[Entity]:
    for rule in _rules():
        if rule.label == "NUMBER":  # after all others
            yield from _hindi_persons(text)
            for hit in _places().find(text):
                if text[hit.start].isupper() or text[hit.start] > "\u0900":
                    yield Entity(hit.start, hit.end, "LOCATION")
        for match in rule.pattern.finditer(text):
            if rule.check(match):
                yield Entity(match.start(), match.end(), rule.label)


def find(text: str) -> list[Entity]:
    """Return the entities of a text in order, none within another."""
    taken = bytearray(len(text))
    found = []
    for entity in _candidates(text):
        if not any(taken[entity.start : entity.end]):
            taken[entity.start : entity.end] = b"\1" * (entity.end - entity.start)
            found.append(entity)
    return sorted(found, key=lambda entity: entity.start)


def tag(text: str, entities: Sequence[Entity]) -> Iterator[tuple[int, int, str]]:
    """Yield the tokens of a text with their BIO tags; no token reaches over the edge of an entity."""
    at = 0
    for entity in entities:
        yield from ((*token.span(), "O") for token in _TOKEN.finditer(text, at, entity.start))
        inside = "B"
        for token in _TOKEN.finditer(text, entity.start, entity.end):
            yield (*token.span(), f"{inside}-{entity.label}")
            inside = "I"
        at = entity.end
    yield from ((*token.span(), "O") for token in _TOKEN.finditer(text, at))


def recognise(text: str) -> Output:
    """Return ``{"entities": [{"text", "label", "start", "end"}], "tokens": [{"token", "tag", "start", "end"}]}``."""
    entities = find(text)
    return {
        "entities": [
            {"text": text[one.start : one.end], "label": one.label, "start": one.start, "end": one.end}
            for one in entities
        ],
        "tokens": [
            {"token": text[start:end], "tag": name, "start": start, "end": end}
            for start, end, name in tag(text, entities)
        ],
    }


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return one `recognise` answer an item; units are the characters of the input."""
    return [recognise(item.text) for item in items], {"characters": Decimal(sum(len(item.text) for item in items))}


def service() -> HostedService:
    return HostedService(
        company=AKSHARA,
        slug="named-entities",
        name="Named entities",
        summary="Dates, times, money, quantities, addresses and well-known names in English and Hindi, by rules.",
        description="Labels DATE, TIME, MONEY, QUANTITY, NUMBER, EMAIL, URL and PHONE by how they are written, "
        "LOCATION by a list of India's states and about a hundred cities, and PERSON only behind a title such as "
        "Shri, Dr. or श्री. It has not learnt anything: people without a title, companies, villages and numbers in "
        "words are not found, a city that is also somebody's name is a LOCATION, and behind a Hindi title a word too "
        "many may be taken for the name. The rules of both languages are applied, whichever is named. Positions are "
        "code points; tokens carry BIO tags.",
        category="nlp",
        unit="characters",
        kind="text",
        languages=("en-Latn", "hi-Deva"),
        capability="named-entities",
        sample={
            "input": [{"text": "Dr. Asha Rao paid Rs. 1,500 in Pune on 5 March."}],
            "config": {"language": "en-Latn"},
        },
        unit_price=Decimal("0.0002"),
        free_units=1_000,
        typical_latency_ms=4,
        runtime="inline",
        license_note="Engine: the platform's own rules and lists.",
        invoke=invoke,
    )
