"""Languages and text: pure functions that know no framework."""

from haat.language.bidi import balance, base_direction, is_balanced, isolate
from haat.language.detection import UNDETERMINED, Candidate, Detection, Model, Span, detect
from haat.language.fallback import ENGLISH, fallback_chain
from haat.language.formats import format_currency, format_date, format_number, format_percent
from haat.language.normalisation import fold, normalise
from haat.language.scripts import Run, detect_script, script_counts, script_runs
from haat.language.similarity import (
    SIMILARITIES,
    Weights,
    edit_similarity,
    ngram_similarity,
    weighted_similarity,
    word_similarity,
)
from haat.language.tags import LANGUAGES, SCRIPTS, Direction, Language, Script, Tag, parse_tag
from haat.language.text import (
    count_graphemes,
    graphemes,
    search_words,
    sentences,
    slice_graphemes,
    truncate,
    words,
)

__all__ = [
    "ENGLISH",
    "LANGUAGES",
    "SCRIPTS",
    "SIMILARITIES",
    "UNDETERMINED",
    "Candidate",
    "Detection",
    "Direction",
    "Language",
    "Model",
    "Run",
    "Script",
    "Span",
    "Tag",
    "Weights",
    "balance",
    "base_direction",
    "count_graphemes",
    "detect",
    "detect_script",
    "edit_similarity",
    "fallback_chain",
    "fold",
    "format_currency",
    "format_date",
    "format_number",
    "format_percent",
    "graphemes",
    "is_balanced",
    "isolate",
    "ngram_similarity",
    "normalise",
    "parse_tag",
    "script_counts",
    "script_runs",
    "search_words",
    "sentences",
    "slice_graphemes",
    "truncate",
    "weighted_similarity",
    "word_similarity",
    "words",
]
