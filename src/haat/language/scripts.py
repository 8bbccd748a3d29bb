"""Which scripts a text is written in, and where each begins and ends (UAX #24)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.language.tags import SCRIPTS

UNKNOWN_SCRIPT = "Zzzz"  # ISO 15924's code for a script that is not coded, here: not one of `SCRIPTS`

_SCRIPTS = {code: regex.compile(rf"\p{{Script={code}}}") for code in SCRIPTS}
_SHARED = regex.compile(r"[\p{Script=Inherited}\p{Script=Common}]")
_LETTER = regex.compile(r"[\p{L}\p{M}]")


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a text in one script: code points ``start`` up to but not including ``end``."""

    start: int
    end: int
    script: str


def script_counts(text: str) -> Counter[str]:
    """Return letters and marks by ISO 15924 code; those of scripts outside the table count as ``Zzzz``.

    Marks that many scripts share (Unicode script *Inherited*) are not counted.
    """
    counts: Counter[str] = Counter()
    for character, times in Counter(_LETTER.findall(text)).items():
        code = _script_of(character)
        if code is not None:
            counts[code] += times
    return counts


def detect_script(text: str) -> str | None:
    """Return the ISO 15924 code most letters belong to, ``Zzzz`` for one outside the table, None without letters."""
    counts = script_counts(text)
    return counts.most_common(1)[0][0] if counts else None


def script_runs(text: str) -> tuple[Run, ...]:
    """Return the runs of a text by script, in order and without a gap; a text without letters has none.

    Spaces, digits, punctuation and shared marks belong to the run before them (UAX #24, 5.1), at the very
    beginning to the first run.
    """
    runs: list[Run] = []
    start, script = 0, None
    for letter in _LETTER.finditer(text):
        found = _script_of(letter[0])
        if found is None or found == script:
            continue
        if script is not None:
            runs.append(Run(start, letter.start(), script))
            start = letter.start()
        script = found
    if script is not None:
        runs.append(Run(start, len(text), script))
    return tuple(runs)


@lru_cache(maxsize=4096)  # more than the letters of all our scripts
def _script_of(character: str) -> str | None:
    """Return the code of a letter's script, None where many scripts share the letter."""
    for code, pattern in _SCRIPTS.items():
        if pattern.match(character):
            return code
    return None if _SHARED.match(character) else UNKNOWN_SCRIPT
