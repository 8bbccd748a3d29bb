"""docs/errors.md lists every reason for a refusal as it is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from haat.kernel import errors
from haat.kernel.errors import HaatError

DOCUMENT = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


def reasons() -> list[type[HaatError]]:
    """Return HaatError and every class below it in its module, in the order of their definition."""

    def below(parent: type[HaatError]) -> Iterator[type[HaatError]]:
        for child in parent.__subclasses__():
            if child.__module__ == errors.__name__:
                yield child
            yield from below(child)

    names = list(vars(errors))
    return sorted({HaatError, *below(HaatError)}, key=lambda reason: names.index(reason.__name__))


def row_of(reason: type[HaatError]) -> str:
    """Return the line of the table that describes a reason."""
    return f"| `{reason.code}` | {reason.status} | {reason.title} | {reason.default_detail} |"


@pytest.mark.parametrize("reason", reasons(), ids=lambda reason: reason.code)
def test_each_reason_is_described(reason: type[HaatError]) -> None:
    assert row_of(reason) in DOCUMENT.splitlines()


def test_nothing_else_is_described() -> None:
    described = re.findall(r"^\| `([A-Z_]+)` \|", DOCUMENT, re.MULTILINE)
    assert sorted(described) == sorted(reason.code for reason in reasons())


def test_each_reason_has_a_code_of_its_own() -> None:
    codes = [reason.code for reason in reasons()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("reason", reasons(), ids=lambda reason: reason.code)
def test_each_reason_says_what_to_do_in_a_sentence(reason: type[HaatError]) -> None:
    assert reason.default_detail[0].isupper()
    assert reason.default_detail.endswith(".")
    assert 400 <= reason.status <= 599
