"""Every text of a page is marked for translation, and every catalog fits what the code marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import resources

import pytest
from jinja2 import nodes

from haat.portal.visit import make_environment

IN_ENGLISH = {"design.html"}
"""For who writes pages, and marked as English."""
TEMPLATES = sorted({file.name for file in resources.files("haat.portal").joinpath("templates").iterdir()} - IN_ENGLISH)
SAID = ("alt", "aria-description", "aria-label", "content", "label", "placeholder", "title")
"""Attributes that a person reads or hears."""
SAME_EVERYWHERE = frozenset(
    (
        *(
            "API",
            "CSV",
            "CPU",
            "GST",
            "GSTIN",
            "Haat",
            "IFSC",
            "JSON",
            "MB",
            "OCR",
            "OpenAPI",
            "PDF",
            "SLA",
            "URL",
            "UTR",
        ),
        *("ms", "p50", "p95", "p99", "chrF", "curl", "JavaScript", "Python", "TypeScript"),
    )
)
"""Words that no language changes."""
_LETTERS = re.compile(r"[^\W\d_]")
_NOT_TEXT = {"code", "pre", "script", "style"}


class _Texts(HTMLParser):
    """Collects what a piece of a template's HTML says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _NOT_TEXT or dict(attrs).get("lang"):
            self._inside.append(tag)
        meta = tag == "meta" and dict(attrs).get("name") != "description"
        self.said += [value or "" for name, value in attrs if name in SAID and not meta]

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.said.append(data)


def _is_said(text: str) -> bool:
    words = re.findall(r"[^\s.,:;()%/+]+", text)
    return any(_LETTERS.search(word) and not {word, word.strip("0")} & SAME_EVERYWHERE for word in words)


def _marked(node: nodes.Node) -> bool:
    return (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Name)
        and node.node.name in ("_", "gettext", "ngettext")
    )


def _constants(node: nodes.Node) -> Iterator[nodes.Const]:
    """Yield texts in expressions that read like sentences or names, where no mark stands around them."""
    if _marked(node) or isinstance(node, nodes.Compare | nodes.Getitem | nodes.Test | nodes.Extends | nodes.Import):
        return
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node
    for child in node.iter_child_nodes():
        yield from _constants(child)


def unmarked(name: str) -> list[str]:
    """Return what a template says without a mark, with its line."""
    environment = make_environment()
    source = environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]  # there is one
    tree = environment.parse(source)
    found = []
    # All HTML of the template as one document; what is computed stands as "0", which says nothing.
    pieces = [
        "".join(node.data if isinstance(node, nodes.TemplateData) else "0" for node in output.nodes)
        for output in tree.find_all(nodes.Output)
    ]
    parser = _Texts()
    parser.feed("\n".join(pieces))  # a line each: what stands in two blocks is not one word
    found += [" ".join(text.split()) for text in parser.said if _is_said(text)]
    for const in _constants(tree):
        if isinstance(const.value, str) and re.match(r"[A-Z][a-z].|.*[a-z,.] [A-Za-z]", const.value, re.DOTALL):
            text = re.sub(r"<[^>]*>", " ", const.value)
            if _is_said(text) and "</" not in const.value and const.value != "light dark":
                found.append(f"line {const.lineno}: {const.value}")
    return found


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_says_nothing_unmarked(name: str) -> None:
    assert unmarked(name) == []
