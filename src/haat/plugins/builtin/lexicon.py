"""Lists of words to watch for, and finding them in text however they are stretched, joined or spelled.

A word is found as a whole word by Unicode's letters and marks, never inside another one. Compared is what a
reader sees: NFC, case folded, without zero-width characters and nuktas, stretched letters cut short.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import regex  # type: ignore[import-untyped]  # the package ships no types

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}\p{Cf}_]+")
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Variation_Selector}]")
_NUKTA = regex.compile("[\u093c\u09bc\u0a3c\u0abc\u0b3c\u064b-\u0652]")
"""Nuktas, and the vowel signs of the Arabic script: written or left out as one likes."""
_KEYBOARDS = str.maketrans("يىك", "ییک")
"""Letters of an Arabic keyboard for those of an Urdu one."""
_STRETCHED = regex.compile(r"(.)\1{2,}")
_REPEATED = regex.compile(r"(.)\1+")
_GAP = regex.compile(r"[\s\p{P}]{1,3}")
LANGUAGES = ("bn", "en", "hi", "mr", "ta", "te", "ur")


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a listed word stands, and the language of its list (``custom`` for the operator's own)."""

    start: int
    end: int
    language: str


def fold(word: str) -> str:
    """Return what two spellings of one word have in common."""
    word = unicodedata.normalize("NFC", _INVISIBLE.sub("", word)).casefold()
    return unicodedata.normalize("NFC", _NUKTA.sub("", unicodedata.normalize("NFD", word))).translate(_KEYBOARDS)


def read_words(text: str) -> Iterator[str]:
    """Return the entries of a list: a line each, nothing after ``#``."""
    for line in text.splitlines():
        entry = line.partition("#")[0].strip()
        if entry:
            yield entry


def own_words(language: str) -> list[str]:
    """Return the list that comes with the house."""
    return list(read_words((files("haat.plugins.builtin") / "words" / f"{language}.txt").read_text("utf-8")))


class Lexicon:
    """The words of several lists. A phrase is a row of words with a little space or punctuation between."""

    def __init__(self, lists: Iterable[tuple[str, Iterable[str]]], allowed: Iterable[str] = ()) -> None:
        innocent = {_folded(entry) for entry in allowed}
        self._phrases: dict[tuple[str, ...], str] = {}
        for language, entries in lists:
            for entry in entries:
                words = _folded(entry)
                if words and words not in innocent:
                    self._phrases.setdefault(words, language)
        self._short = {tuple(_cut(word) for word in words): language for words, language in self._phrases.items()}
        self._first = {words[0] for words in (*self._phrases, *self._short)}
        self._longest = max((len(words) for words in self._phrases), default=0)

    @classmethod
    def of(cls, languages: Iterable[str], paths: Iterable[Path] = (), allowed: Iterable[str] = ()) -> Lexicon:
        """Read the lists of the house and the operator's own files; raise OSError or UnicodeDecodeError."""
        lists = [(language, own_words(language)) for language in languages]
        lists += [("custom", list(read_words(path.read_text("utf-8")))) for path in paths]
        return cls(lists, allowed)

    def find(self, text: str) -> Iterator[Hit]:
        """Return what is found in order, the longest phrase at each place."""
        words = [(match.start(), match.end(), fold(match.group())) for match in _WORD.finditer(text)]
        at = 0
        while at < len(words):
            length, language = self._longest_at(text, words, at)
            if length:
                yield Hit(words[at][0], words[at + length - 1][1], language)
            at += length or 1

    def _longest_at(self, text: str, words: list[tuple[int, int, str]], at: int) -> tuple[int, str]:
        best = 0, ""
        for variant in _variants(words[at][2]):
            if variant not in self._first:
                continue
            phrase: tuple[str, ...] = ()
            for length in range(1, min(self._longest, len(words) - at) + 1):
                here = words[at + length - 1]
                if length > 1 and not _GAP.fullmatch(text, words[at + length - 2][1], here[0]):
                    break
                phrase += (variant if length == 1 else here[2],)
                language = self._phrases.get(phrase) or (self._short.get(phrase) if variant != words[at][2] else None)
                if language is not None and length > best[0]:
                    best = length, language
        return best


def _folded(entry: str) -> tuple[str, ...]:
    return tuple(fold(word) for word in _WORD.findall(entry))


def _cut(word: str) -> str:
    return str(_REPEATED.sub(r"\1", word))


def _variants(word: str) -> tuple[str, ...]:
    """Return a word as it is and, when somebody stretched it, with its letters cut to two and to one.

    Only three of a kind are a stretch: double letters are how words are spelled.
    """
    if not _STRETCHED.search(word):
        return (word,)
    return word, str(_STRETCHED.sub(r"\1\1", word)), _cut(word)
