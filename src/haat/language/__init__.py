"""Languages and text: pure functions that know no framework."""

from haat.language.tags import LANGUAGES, SCRIPTS, Language, Script, Tag, parse_tag
from haat.language.text import count_graphemes, detect_script, graphemes, normalise, script_counts, search_words

__all__ = [
    "LANGUAGES",
    "SCRIPTS",
    "Language",
    "Script",
    "Tag",
    "count_graphemes",
    "detect_script",
    "graphemes",
    "normalise",
    "parse_tag",
    "script_counts",
    "search_words",
]
