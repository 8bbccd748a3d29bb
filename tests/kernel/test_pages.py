"""Cursors: ours come back unchanged, and nothing else gets through."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import InvalidRequest
from haat.kernel.ids import new_id
from haat.kernel.pages import decode_cursor, decode_id_cursor, encode_cursor, page_of

STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)


def _cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


@given(st.integers(-(2**62), 2**62), STORABLE, STORABLE)
def test_a_cursor_of_ours_comes_back_as_its_key(score: int, name: str, identifier: str) -> None:
    cursor = encode_cursor(score, name, identifier)
    assert decode_cursor(cursor, 3, int, str, str) == [score, name, identifier]
    assert all(letter.isalnum() or letter in "-_" for letter in cursor)


@given(st.text(max_size=300))
def test_no_text_at_all_breaks_the_reader(garbage: str) -> None:
    try:
        key = decode_cursor(garbage, 3, int, str, str)
    except InvalidRequest:
        return
    assert [type(part) for part in key] == [int, str, str]


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_no_json_of_another_shape_gets_through(value: object) -> None:
    try:
        key = decode_cursor(_cursor(json.dumps(value)), 2, int, str)
    except InvalidRequest:
        return
    assert [type(part) for part in key] == [int, str]


@pytest.mark.parametrize(
    "text",
    [
        '{"0":1,"1":"a"}',
        '["1","a"]',
        '[null,"a"]',
        '[true,"a"]',
        '[1.5,"a"]',
        '[NaN,"a"]',
        '[Infinity,"a"]',
        f'[{10**30},"a"]',
        '[1,"a\\u0000b"]',
        '[1,"\\ud800"]',
        '[1,"a","b"]',
        "[" * 100_000,
        "",
    ],
)
def test_a_forged_cursor_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(InvalidRequest, match="previous page"):
        decode_cursor(_cursor(text), 2, int, str)


def test_a_last_page_has_no_cursor() -> None:
    assert page_of([1, 2, 3], 3, lambda row: (row,)).next is None


def test_a_page_with_a_row_to_spare_names_its_last_row() -> None:
    page = page_of([1, 2, 3], 2, lambda row: (row,))
    assert list(page.items) == [1, 2]
    assert page.next is not None and decode_cursor(page.next, 1) == [2]


def test_an_id_goes_through_a_cursor_and_nothing_else_does() -> None:
    identifier = new_id()
    assert decode_id_cursor(None) is None
    assert decode_id_cursor(encode_cursor(identifier)) == identifier
    for foreign in (encode_cursor("no id"), encode_cursor(7), encode_cursor(str(identifier), 1), "!"):
        with pytest.raises(InvalidRequest):
            decode_id_cursor(foreign)
