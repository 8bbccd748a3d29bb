"""What a word sounds like, roughly, in Latin letters: अनुवाद, অনুবাদ and anuvad come out alike.

The nine scripts that Unicode took over from ISCII lie in their blocks in one order (Unicode, 12: "the layout of these
blocks follows ISCII-1988"), so one table of offsets reads them all. What spellings of one word differ in is dropped:
the length of vowels, doubled letters, aspiration, the schwa that is written and not spoken (Ohala, 1983). The result is
a key to look words up by, and nothing to show. Words of other scripts are their own key.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.language.normalisation import fold

_BLOCKS = range(0x0900, 0x0D80, 0x80)
_VOWELS = dict(enumerate("aAiiuu", 0x05)) | {0x0B: "ri", 0x0C: "li", 0x60: "ri", 0x61: "li"}
_VOWELS |= dict.fromkeys((0x0D, 0x0E, 0x0F), "e") | {0x10: "ai"}
_VOWELS |= dict.fromkeys((0x11, 0x12, 0x13), "o") | {0x14: "au", 0x04: "a", 0x72: "e"}
_SIGNS = {0x3E: "A", 0x3F: "i", 0x40: "i", 0x41: "u", 0x42: "u", 0x43: "ri", 0x44: "ri", 0x48: "ai", 0x4C: "au"}
_SIGNS |= dict.fromkeys((0x45, 0x46, 0x47), "e") | dict.fromkeys((0x49, 0x4A, 0x4B), "o") | {0x57: "", 0x62: "li"}
_CONSONANTS = dict(enumerate("kkggnccjjnttddnttddnnpfbbmyrrlllvsssh", 0x15)) | dict(enumerate("kkgjrrfy", 0x58))
_VIRAMA, _NUKTA = 0x4D, 0x3C
_OTHERS = {
    "ং": "n", "ৎ": "t", "ৰ": "ra", "ৱ": "va", "ੰ": "n", "ੱ": "",
    "ൺ": "n", "ൻ": "n", "ർ": "r", "ൽ": "l", "ൾ": "l", "ൿ": "k",
}  # fmt: skip
_NASAL = {0x01: "n", 0x02: "n", 0x03: "h"}
_REWRITTEN = (
    ("zh", "l"), ("tch", "c"), ("ch", "c"), ("sh", "s"), ("ph", "f"), ("ck", "k"), ("w", "v"), ("q", "k"),
    ("x", "ks"), ("z", "j"), ("aa", "a"), ("ee", "i"), ("oo", "u"),
)  # fmt: skip
_LATIN = regex.compile(r"[a-z]+")
_ASPIRATED = regex.compile(r"(?<=[bcdfgjklprst])h")
_HARD_C = regex.compile(r"c(?![eiyh])")
_NASAL_BEFORE = regex.compile(r"m(?=[bpf]|$)")
_RUN = regex.compile(r"(.)\1+")
_UNSPOKEN = regex.compile(r"(?<=..)a$|(?<=[Aaeiou][^Aaeiou])a(?=[^Aaeiou][Aeiou])")
_LAST = regex.compile(r"(?<=..)a$")
_SPEAKS_EVERY_SCHWA = "\u0b00"  # Odia and the Dravidian scripts begin here


@lru_cache(maxsize=65_536)
def sound(word: str) -> str:
    """Return the key of a word; of one in a script that this module doesn't read, the word in one spelling."""
    word = fold(word)
    latin = "".join(letter for letter in unicodedata.normalize("NFD", word) if not unicodedata.combining(letter))
    if _LATIN.fullmatch(latin):
        return _worn(_NASAL_BEFORE.sub("n", _ASPIRATED.sub("", _spelt(latin))))
    read = _read(word)
    return word if read is None else _worn(_NASAL_BEFORE.sub("n", read))


def _spelt(latin: str) -> str:
    """Return English and Indian spellings of a sound as one; ``c`` is written for what ``ch`` stands for."""
    latin = _HARD_C.sub("k", latin.replace("ck", "k"))
    for written, heard in _REWRITTEN:
        latin = latin.replace(written, heard)
    return latin


def _worn(heard: str) -> str:
    worn: str = _LAST.sub("", _RUN.sub(r"\1", heard))
    return worn


def _read(word: str) -> str | None:
    """Return a Brahmic word letter by letter, None for any other one."""
    heard: list[str] = []  # ā, which is never silent, as a capital
    inherent = False  # whether the last consonant still speaks its own vowel
    for letter in word:
        if (other := _OTHERS.get(letter)) is not None:
            heard.append(("a" if inherent else "") + other)
            inherent = False
            continue
        block, place = divmod(ord(letter), 0x80)
        if block * 0x80 not in _BLOCKS:
            return None
        if place in _CONSONANTS:
            heard.append(("a" if inherent else "") + _CONSONANTS[place])
            inherent = True
        elif place in _SIGNS:
            heard.append(_SIGNS[place])
            inherent = False
        elif place in _VOWELS or place in _NASAL:
            heard.append(("a" if inherent else "") + (_VOWELS.get(place) or _NASAL[place]))
            inherent = False
        elif place == _VIRAMA:
            inherent = False
        elif place != _NUKTA:
            return None
    spoken = "".join(heard) + ("a" if inherent else "")
    return (spoken if word >= _SPEAKS_EVERY_SCHWA else _UNSPOKEN.sub("", spoken)).replace("A", "a")
