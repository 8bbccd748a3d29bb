"""Whether the texts of a batch are fit to be worked on: sizes, empty and repeated ones, language, abusive words.

A batch is the ``input`` of a task call (docs/tasks.md): items that hold texts at any depth. Each finding names its
field by its way from the root, ``input[3].text``. Whatever is handed in, nothing here raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.language.normalisation import fold
from haat.language.scripts import script_counts
from haat.language.tags import SCRIPTS, parse_tag
from haat.language.text import graphemes

Duplicates = Literal["allow", "refuse"]
Profanity = Literal["allow", "flag", "refuse"]
Finds = Callable[[str], bool]
"""Tells whether a text holds a word that is not let through."""

MOST_FINDINGS = 100
DEEPEST = 32
LEAST_SHARE = 0.6  # of the letters, for one script to stand for a text (as in `detection`)
_BINARY = frozenset({"content"})
"""Keys of audio and images in base64: no text."""
_BLANK = regex.compile(r"[\s\p{Cf}\p{Default_Ignorable_Code_Point}]*")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a field, in words that follow its name."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Findings:
    """``errors`` speak against the batch; ``flags`` only want to be known. Each at most `MOST_FINDINGS`."""

    errors: tuple[Finding, ...] = ()
    flags: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What is looked at. 0 for no limit; lengths are code points, as characters are metered.

    ``items`` and ``total`` bound the batch, ``least`` and ``most`` each text; ``repeats`` is the longest run of one
    character (grapheme). ``language`` compares the script of each text with what ``config`` declares.
    """

    items: int = 0
    total: int = 0
    least: int = 0
    most: int = 0
    repeats: int = 0
    empty: bool = False
    """Whether a text may be empty, or hold nothing that can be seen."""
    duplicates: Duplicates = "allow"
    language: bool = False
    profanity: Profanity = "allow"


def validate(call: Any, rules: Rules, is_profane: Finds | None = None) -> Findings:
    """Return what speaks against a task call's ``input``: text by text in order, then what the batch is as a whole.

    Each text is judged by itself, so that another order of the items only gives the findings other numbers; but of
    texts that are alike the first one is kept, and the later ones name it. Texts are alike when they are equal
    folded, in the same place of their item.
    """
    items = call.get("input") if isinstance(call, dict) else None
    if not isinstance(items, list) or not items:
        return Findings((Finding("input", "must be a list with at least one item"),))
    if rules.items and len(items) > rules.items:
        return Findings((Finding("input", f"has {len(items)} items; at most {rules.items} are taken"),))
    errors: list[Finding] = []
    flags: list[Finding] = []
    declared = _declared(call) if rules.language else None
    length = 0
    for index, item in enumerate(items):
        for field, text in _texts(item, f"input[{index}]", errors):
            length += len(text)
            errors += (Finding(field, message) for message in _problems(text, rules, declared))
            if _is_looked_at(text, rules) and is_profane is not None and is_profane(text):
                (errors if rules.profanity == "refuse" else flags).append(
                    Finding(field, "holds a word that is not let through here")
                )
    if rules.duplicates == "refuse":
        errors += _duplicates(items)
    if rules.total and length > rules.total:
        errors.append(Finding("input", f"has {length} characters in all; at most {rules.total} are taken"))
    return Findings(tuple(errors[:MOST_FINDINGS]), tuple(flags[:MOST_FINDINGS]))


# --- texts and where they are -------------------------------------------------------------------


def _texts(value: Any, at: str, errors: list[Finding], depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the texts in an item with their fields; what is nested too deep to look into is an error."""
    if isinstance(value, str):
        yield at, value
        return
    if not isinstance(value, dict | list):
        return
    if depth >= DEEPEST:
        errors.append(Finding(at, f"is nested deeper than {DEEPEST} levels"))
        return
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for name, member in members:
        if name not in _BINARY or not isinstance(member, str):
            yield from _texts(member, f"{at}[{name}]" if isinstance(value, list) else f"{at}.{name}", errors, depth + 1)


def _duplicates(items: list[Any]) -> list[Finding]:
    found: list[Finding] = []
    first: dict[tuple[tuple[str, str], ...], int] = {}
    for index, item in enumerate(items):
        at = f"input[{index}]"
        texts = tuple((field[len(at) :], fold(text)) for field, text in _texts(item, at, []))
        if not texts:
            continue  # audio and images are not compared
        earlier = first.setdefault(texts, index)
        if earlier != index:
            found.append(Finding(f"{at}{texts[0][0]}", f"is the same as input[{earlier}]{texts[0][0]}"))
    return found


# --- what can be wrong with one -----------------------------------------------------------------


def _is_looked_at(text: str, rules: Rules) -> bool:
    return rules.profanity != "allow" and not (rules.most and len(text) > rules.most)


def _problems(text: str, rules: Rules, declared: tuple[str, str] | None) -> Iterator[str]:
    if _BLANK.fullmatch(text):
        if not rules.empty:
            yield "must be a text that is not empty"
        return
    if rules.most and len(text) > rules.most:
        yield f"has {len(text)} characters; at most {rules.most} are taken"
        return  # what is too long isn't looked at further: that is what the limit is for
    if rules.least and len(text) < rules.least:
        yield f"has {len(text)} characters; at least {rules.least} are needed"
    if rules.repeats:
        yield from _repeated(text, rules.repeats)
    if declared is not None:
        yield from _foreign(text, *declared)


def _repeated(text: str, most: int) -> Iterator[str]:
    run, before = 0, ""
    for grapheme in graphemes(text):
        run = run + 1 if grapheme == before else 1
        before = grapheme
        if run > most and not grapheme.isspace():
            yield f"repeats {grapheme[:8]!r} more than {most} times"
            return


def _declared(call: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the field that declares the language of the texts, and its script; None if none of ours is declared."""
    config = call.get("config")
    if not isinstance(config, dict):
        return None
    for name in ("source", "language"):
        tag = config.get(name)
        if isinstance(tag, str):
            try:
                return f"config.{name}", parse_tag(tag).script
            except ValueError:
                return None
    return None


def _foreign(text: str, field: str, script: str) -> Iterator[str]:
    counts = script_counts(text)
    if not counts:
        return
    found, letters = counts.most_common(1)[0]
    if found != script and letters >= LEAST_SHARE * counts.total():
        written = SCRIPTS[found].name if found in SCRIPTS else "another script"
        yield f"is written in {written}, but {field} says {SCRIPTS[script].name}"
