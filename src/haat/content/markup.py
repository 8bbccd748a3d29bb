"""The markup of bodies: a small part of CommonMark, rendered to HTML that nobody can write tags into.

Headings, paragraphs, lists, emphasis, code and links; a backslash takes a sign's meaning. Everything else is text.
Links lead to http, https or this portal; any other stays the text it was. See docs/content.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from markdown_it import MarkdownIt

from haat.language import sentences

DEEPEST_HEADING = 4
_RULES = ("heading", "list", "fence", "emphasis", "link", "backticks", "escape", "newline")
_LINE_END = re.compile(r"\r\n?|\n")
_WEB = re.compile(r"https?://[^/?#\s\\]", re.IGNORECASE)
_SCHEME = re.compile(r"[^/?#]*:")
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\\]")
# What stands in a sentence and is not for translating: code, where a link leads, the signs of emphasis, placeholders.
_KEPT = re.compile(r"(`+[^`]+`+|\]\([^)\s]*\)|\[|\*+|(?<!\w)_+|_+(?!\w)|\{[a-z_]+\}|\\.)")


@dataclass(frozen=True, slots=True)
class Segment:
    """A heading, paragraph or item of a list: where it stands in the body's lines, what is before it, its text."""

    first: int
    end: int
    prefix: str
    text: str


def is_safe_link(address: str) -> bool:
    """Tell whether a link may stand in a page: http, https, a path on this portal, or a place on the page."""
    if not address or _UNSEEN.search(address):
        return False
    if _WEB.match(address):
        return True
    return not _SCHEME.match(address) and not address.startswith("//")


def render(body: str) -> str:
    """Return the HTML of a body: headings from ``h2``, ``p``, lists, ``em``, ``strong``, ``code``, ``br`` and ``a``."""
    parser = _parser()
    tokens = parser.parse(body)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1:]) + 1, DEEPEST_HEADING)}"  # the page's title is its h1
        elif token.type == "fence":
            token.info = ""
    html = str(parser.renderer.render(tokens, parser.options, {}))
    return html.replace("<pre>", '<pre tabindex="0">')  # what scrolls can be reached by keys


def segments(body: str) -> list[Segment]:
    """Return what a body says, piece by piece, in order; blocks of code are none."""
    lines = _LINE_END.split(body)
    found = []
    for token in _parser().parse(body):
        if token.type != "inline" or token.map is None or not token.content.strip():
            continue
        first, end = token.map
        opening = token.content.split("\n", 1)[0]
        at = lines[first].find(opening)
        if at >= 0:
            text = " ".join(line.strip() for line in token.content.split("\n"))
            found.append(Segment(first, end, lines[first][:at], text))
    return found


def with_segments(body: str, texts: Sequence[str]) -> str:
    """Return the body with another text in each of its `segments`."""
    lines = _LINE_END.split(body)
    for segment, text in reversed(list(zip(segments(body), texts, strict=True))):
        lines[segment.first : segment.end] = [segment.prefix + text]
    return "\n".join(lines)


def pairs(source: str, target: str) -> Iterator[tuple[str, str]]:
    """Yield what in one body stands for what in its translation, sentence by sentence.

    Bodies that aren't built alike, segment for segment, teach nothing. A segment whose sentences are not as many on
    both sides is one pair.
    """
    ours, theirs = segments(source), segments(target)
    if len(ours) != len(theirs):
        return
    for one, other in zip(ours, theirs, strict=True):
        first, second = sentences(one.text), sentences(other.text)
        yield from zip(first, second, strict=True) if len(first) == len(second) else [(one.text, other.text)]


def pieces(sentence: str) -> list[str]:
    """Return the parts of a sentence that a translator is asked for: its words without links, code and signs."""
    return [part.strip() for part in _KEPT.split(sentence)[::2] if _has_words(part)]


def with_pieces(sentence: str, translated: Callable[[str], str]) -> str:
    """Return the sentence with each of its `pieces` translated and everything else, spaces included, in its place."""
    parts = _KEPT.split(sentence)
    for place, part in enumerate(parts):
        if place % 2 == 0 and _has_words(part):
            core = part.strip()
            start = part.index(core)
            parts[place] = part[:start] + translated(core) + part[start + len(core) :]
    return "".join(parts)


def plain(body: str) -> str:
    """Return what a body says without its markup, segment by segment, for a search's excerpt."""
    return "\n".join(_plain(segment.text) for segment in segments(body))


def _plain(text: str) -> str:
    [inline] = _parser().parseInline(text)
    return "".join(token.content for token in inline.children or ())


def _has_words(part: str) -> bool:
    return any(letter.isalpha() for letter in part)


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("zero", {"html": False, "linkify": False, "maxNesting": 20}).enable(list(_RULES))
    parser.validateLink = is_safe_link  # type: ignore[assignment]  # the library's own way to say so
    return parser
