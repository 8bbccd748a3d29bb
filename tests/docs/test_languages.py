"""docs/languages.md says of each language what the code knows, and its examples are true."""

from __future__ import annotations

import re
from pathlib import Path

import haat.language
from haat.language import LANGUAGES, Tag, fallback_chain, normalise
from haat.language.detection import LEAST_CONFIDENCE, LEAST_GRAPHEMES, LEAST_SHARE

DOCUMENT = (Path(__file__).parents[2] / "docs" / "languages.md").read_text()


def test_every_tag_is_described_as_the_code_has_it() -> None:
    tags = [Tag(code, script) for code, language in LANGUAGES.items() for script in language.scripts]
    expected = [f"| `{tag}` | {tag.name} | {tag.own_name} | {tag.direction} | {_chain(tag)} |" for tag in tags]
    assert re.findall(r"^\| `[a-z]{2,3}-[A-Z].*\|$", DOCUMENT, re.MULTILINE) == expected


def test_every_example_of_normalisation_is_true() -> None:
    examples = re.findall(r"^\| .* \| `([0-9A-F ]+)` \| `([0-9A-F ]*)` \|$", DOCUMENT, re.MULTILINE)
    assert len(examples) > 20
    for written, normal in examples:
        assert normalise(_text(written)) == _text(normal), (written, normal)


def test_the_limits_of_detection_are_those_of_the_code() -> None:
    assert f"below {LEAST_CONFIDENCE} " in DOCUMENT
    assert f"less than {LEAST_SHARE:.0%} of the letters" in DOCUMENT.replace(" %", "%")
    assert f"fewer than {LEAST_GRAPHEMES} graphemes" in DOCUMENT


def test_every_name_that_is_written_as_a_call_is_public() -> None:
    called = set(re.findall(r"`(\w+)\(", DOCUMENT))
    assert called and called <= set(haat.language.__all__)


def _chain(tag: Tag) -> str:
    """Write what a tag falls back to, with its script only where that isn't the usual one."""
    usual = {language.tag for language in LANGUAGES.values()}
    return " → ".join(each.language if each in usual else str(each) for each in fallback_chain(tag)[1:]) or "–"


def _text(code_points: str) -> str:
    return "".join(chr(int(point, 16)) for point in code_points.split())
