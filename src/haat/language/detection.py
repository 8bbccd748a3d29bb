"""Which language a text is in: the script first, then telling letters, then telling words, then a model.

A script that writes one of our languages decides alone. Where several share a script, the cheapest evidence that
is strong enough decides, and a model is asked only if none is. The model is a parameter: this package has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from haat.language.evidence import MODEL_KNOWS, TELLING_LETTERS, TELLING_WORDS, Counts
from haat.language.normalisation import normalise
from haat.language.scripts import UNKNOWN_SCRIPT, Run, script_counts, script_runs
from haat.language.tags import LANGUAGES, Tag
from haat.language.text import count_graphemes, search_words

UNDETERMINED = "und"  # BCP-47

Evidence = Literal["script", "letters", "words", "model"]
Reason = Literal["no letters", "unknown script", "mixed scripts", "too short", "no evidence"]

LEAST_CONFIDENCE = 0.5  # more likely right than wrong, or not named
LEAST_SHARE = 0.6  # of the letters, for one script to stand for the text
LEAST_GRAPHEMES = 4  # below, a model is right about as often as not in the scripts that languages share
# A telling letter is worth what it says if there is one in eight words, a telling word if one in four: else a text
# that quotes another language would be taken for it.
_WORDS_A_LETTER = 8
_WORDS_A_WORD = 4


class Model(Protocol):
    """What tells languages apart by statistics, such as fastText's."""

    def rank(self, text: str) -> Sequence[tuple[str, float]]:
        """Return BCP-47 codes of languages, any of the world's, with probabilities 0..1, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A language that a text may be in, how sure that is (0..1), and by what evidence."""

    tag: Tag
    confidence: float
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Span:
    """Code points ``start`` up to but not including ``end``, all of one script; ``language`` is a tag or ``und``."""

    start: int
    end: int
    script: str
    language: str


@dataclass(frozen=True, slots=True)
class Detection:
    """What is known of a text's language.

    ``candidates`` are the most likely first, those too weak to be named among them; ``script`` is the one of most
    letters, ``Zzzz`` outside our scripts, None without letters; ``reason`` says why no language is named.
    """

    candidates: tuple[Candidate, ...]
    script: str | None
    spans: tuple[Span, ...]
    reason: Reason | None

    @property
    def best(self) -> Candidate | None:
        """The candidate that is named, None if the language is undetermined."""
        return self.candidates[0] if self.reason is None else None

    @property
    def language(self) -> str:
        """The tag of the best candidate, or ``und``."""
        return str(self.best.tag) if self.best else UNDETERMINED


def detect(text: str, model: Model | None = None) -> Detection:
    """Return the language of a text, or why it can't be told; any text has an answer.

    Each script's part is judged by itself, and the confidence of the whole is that of its main script times the
    share of letters in it. Without a model only scripts, letters and words are evidence.
    """
    counts = script_counts(text)
    if not counts:
        return Detection((), None, (), "no letters")
    runs = script_runs(text)
    judged = {script: _judge(script, _part(text, runs, script), model) for script in counts}
    spans = tuple(Span(run.start, run.end, run.script, _named(*judged[run.script])) for run in runs)
    script, letters = counts.most_common(1)[0]
    share = letters / counts.total()
    found, reason = judged[script]
    candidates = tuple(Candidate(each.tag, each.confidence * share, each.evidence) for each in found)
    if share < LEAST_SHARE:
        reason = "mixed scripts"
    elif reason is None and candidates[0].confidence < LEAST_CONFIDENCE:
        reason = "mixed scripts"  # sure enough of its part, not of the whole
    return Detection(candidates, script, spans, reason)


def languages_of(script: str) -> tuple[str, ...]:
    """Return the codes of our languages that are written in a script, Latin only for those that usually are."""
    return tuple(code for code, language in LANGUAGES.items() if script in language.scripts)


_ONLY_LANGUAGE = {
    script: codes[0]
    for script in {script for language in LANGUAGES.values() for script in language.scripts} - {"Latn"}
    if len(codes := languages_of(script)) == 1
}


def _part(text: str, runs: Sequence[Run], script: str) -> str:
    return normalise(" ".join(text[run.start : run.end].strip() for run in runs if run.script == script))


def _named(candidates: tuple[Candidate, ...], reason: Reason | None) -> str:
    return str(candidates[0].tag) if reason is None else UNDETERMINED


def _judge(script: str, text: str, model: Model | None) -> tuple[tuple[Candidate, ...], Reason | None]:
    """Return the candidates for a text in one script, and why the first can't be named, if so."""
    if script == UNKNOWN_SCRIPT:
        return (), "unknown script"
    if script in _ONLY_LANGUAGE:
        return (Candidate(Tag(_ONLY_LANGUAGE[script], script), 1.0, "script"),), None
    words = search_words(text)
    weak: list[Candidate] = []
    for candidates in (_by_letters(script, text, len(words)), _by_words(script, words)):
        if _strong(candidates) and (model is None or candidates[0].tag.language not in MODEL_KNOWS):
            return candidates, None
        weak.extend(candidates)
    if model is None:
        return _best_of_each(weak), "no evidence"
    length = count_graphemes("".join(words))
    if length < LEAST_GRAPHEMES:
        return _best_of_each(weak), "too short"
    candidates = _best_of_each([*(_doubted(each, weak) for each in _by_model(script, text, length, model)), *weak])
    return candidates, None if _strong(candidates) else "no evidence"


def _strong(candidates: Sequence[Candidate]) -> bool:
    return bool(candidates) and candidates[0].confidence >= LEAST_CONFIDENCE


def _by_letters(script: str, text: str, words: int) -> tuple[Candidate, ...]:
    telling = TELLING_LETTERS.get(script)
    return _weighed(script, telling(text), words // _WORDS_A_LETTER, "letters") if telling else ()


def _by_words(script: str, words: Sequence[str]) -> tuple[Candidate, ...]:
    lists = TELLING_WORDS.get(script)
    if lists is None:
        return ()
    counts = {language: sum(word in telling for word in words) for language, telling in lists.items()}
    return _weighed(script, counts, len(words) // _WORDS_A_WORD, "words")


def _weighed(script: str, counts: Counts, silence: int, evidence: Evidence) -> tuple[Candidate, ...]:
    """Return the languages that something speaks for, by the rule of succession.

    ``n`` signs for a language, ``m`` for others, and ``silence``, as many as would have been expected, make
    (n + 1) / (n + m + silence + 2): a single sign alone is worth two thirds, and nothing is ever certain.
    """
    found = Counter({language: count for language, count in counts.items() if count})
    total = found.total() + silence + max(2, len(found))
    return tuple(
        Candidate(Tag(language, script), (count + 1) / total, evidence) for language, count in found.most_common()
    )


def _by_model(script: str, text: str, length: int, model: Model) -> tuple[Candidate, ...]:
    """Return the model's languages that are written in the script.

    Its probabilities are times n / (n + 1) for a text of n graphemes, so that on pieces of everyday sentences it is
    right at least as often as the product says (docs/languages.md has the figures).
    """
    probabilities: dict[str, float] = {}
    for language, probability in model.rank(text):
        probabilities[language] = probabilities.get(language, 0.0) + probability
    return tuple(
        Candidate(Tag(language, script), min(1.0, max(0.0, probabilities[language])) * length / (length + 1), "model")
        for language in languages_of(script)
        if language in probabilities
    )


def _doubted(candidate: Candidate, weak: Sequence[Candidate]) -> Candidate:
    """Return a model's candidate less sure by what letters and words say for another language and not for it.

    A model that doesn't know Dogri is very sure of Hindi.
    """
    own = max((each.confidence for each in weak if each.tag == candidate.tag), default=0.0)
    other = max((each.confidence for each in weak if each.tag != candidate.tag), default=0.0)
    if other <= own:
        return candidate
    return Candidate(candidate.tag, candidate.confidence * (1 - other), candidate.evidence)


def _best_of_each(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return each language once, by its best evidence, the most likely first."""
    best: dict[Tag, Candidate] = {}
    for candidate in sorted(candidates, key=lambda each: each.confidence, reverse=True):
        best.setdefault(candidate.tag, candidate)
    return tuple(best.values())
