"""Every refusal is RFC 9457 with a stable code."""

from __future__ import annotations

import re

import pytest

from haat.kernel import errors
from haat.kernel.errors import HaatError, ValidationFailed, problem_type


def _all(kind: type[HaatError]) -> list[type[HaatError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _all(child))]


ALL = [kind for kind in _all(HaatError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_refusal_says_what_to_do_under_a_stable_code(kind: type[HaatError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z_]*[A-Z]", kind.code)
    assert 400 <= kind.status <= 599
    assert kind.default_detail.endswith(".") and not kind.title.endswith(".")


def test_no_two_kinds_share_a_code() -> None:
    assert len({kind.code for kind in ALL}) == len(ALL)


def test_a_problem_has_the_members_of_the_rfc_and_ours() -> None:
    error = ValidationFailed("Mend it.", errors=[{"field": "name", "message": "Enter a name."}])
    assert error.problem("id-1", "/api/v1/accounts") == {
        "type": "urn:haat:problem:validation-failed",
        "title": "Some fields need correcting",
        "status": 422,
        "detail": "Mend it.",
        "code": "VALIDATION_FAILED",
        "request_id": "id-1",
        "instance": "/api/v1/accounts",
        "errors": [{"field": "name", "message": "Enter a name."}],
    }


def test_a_problem_without_place_names_none() -> None:
    assert "instance" not in HaatError().problem("id-1")


def test_a_problem_type_is_a_urn() -> None:
    assert problem_type("RATE_LIMITED") == "urn:haat:problem:rate-limited"
