"""Every reader gets the nearest language there is, English at last."""

from __future__ import annotations

import pytest

from haat.language import ENGLISH, LANGUAGES, Tag, fallback_chain, parse_tag

TAGS = [
    Tag(code, script) for code, language in LANGUAGES.items() for script in dict.fromkeys((*language.scripts, "Latn"))
]


@pytest.mark.parametrize(
    ("tag", "chain"),
    [
        ("mai", "mai-Deva hi-Deva en-Latn"),
        ("kok", "kok-Deva mr-Deva hi-Deva en-Latn"),
        ("ks", "ks-Arab ur-Arab en-Latn"),
        ("ks-Deva", "ks-Deva hi-Deva en-Latn"),
        ("mni", "mni-Mtei mni-Beng en-Latn"),
        ("ta", "ta-Taml en-Latn"),
        ("hi-Latn", "hi-Latn en-Latn"),
        ("en", "en-Latn"),
    ],
)
def test_a_language_falls_back_to_its_neighbours(tag: str, chain: str) -> None:
    assert " ".join(map(str, fallback_chain(parse_tag(tag)))) == chain


@pytest.mark.parametrize("tag", TAGS, ids=str)
def test_every_chain_begins_with_the_tag_and_ends_in_english(tag: Tag) -> None:
    chain = fallback_chain(tag)
    assert (chain[0], chain[-1]) == (tag, ENGLISH)
    assert len(set(chain)) == len(chain)


@pytest.mark.parametrize("tag", TAGS, ids=str)
def test_a_chain_keeps_the_readers_script(tag: Tag) -> None:
    if tag.script != "Mtei":
        assert {each.script for each in fallback_chain(tag)} <= {tag.script, "Latn"}
