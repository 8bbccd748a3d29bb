"""What makes two requests the same, and what headers say about keeping an answer."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.gateway.cache.keys import (
    answer_key,
    canonical,
    entity_tag,
    kept_lines,
    lifetime,
    matches,
    read_asking,
    spell,
)

SPACE = b"space"
NONE: frozenset[bytes] = frozenset()
JSON = b"Content-Type: application/json\r\n"


def key_of(body: bytes, *lines: bytes, method: bytes = b"POST", tail: bytes = b"/invoke") -> bytes:
    asking = read_asking(list(lines), frozenset({b"x-model"}))
    read = canonical(body) if asking.json else None
    return answer_key(SPACE, method, tail, asking.selecting, body if read is None else read[1])


def spelling(body: bytes) -> bytes:
    read = canonical(body)
    assert read is not None and read[1] == spell(read[0])
    return read[1]


def test_the_spelling_of_json_does_not_matter() -> None:
    composed, decomposed = "\u0958\u00e9".encode(), "क\u093ce\u0301".encode()
    one = b'{"text": "' + composed + b'",\n "n": 1}'
    assert key_of(one, JSON) == key_of(b'{"n":1,"text":"' + decomposed + b'"}', JSON)
    assert key_of(one, JSON) == key_of(b'{"n":1,"text":"\\u0915\\u093ce\\u0301"}', JSON)
    assert key_of(b"{ }", JSON) == key_of(b"{}", b"content-type: application/json; charset=UTF-8\r\n")


@pytest.mark.parametrize(
    "other",
    [
        (b'{"n":2}', (JSON,), {}),
        (b'{"n":1.0}', (JSON,), {}),
        (b'{"N":1}', (JSON,), {}),
        (b'{"n":"1"}', (JSON,), {}),
        (b'{"n":1}', (JSON, b"Accept: text/plain\r\n"), {}),
        (b'{"n":1}', (JSON, b"Accept-Language: hi\r\n"), {}),
        (b'{"n":1}', (JSON, b"X-Model: large\r\n"), {}),
        (b'{"n":1}', (b"Content-Type: application/json;v=2\r\n",), {}),
        (b'{"n":1}', (JSON,), {"method": b"GET"}),
        (b'{"n":1}', (JSON,), {"tail": b"/invoke?x"}),
        (b'{"n":1}', (JSON,), {"tail": b"/Invoke"}),
    ],
)
def test_what_can_select_another_answer_makes_another_key(other: tuple[bytes, tuple[bytes, ...], Any]) -> None:
    body, lines, named = other
    assert key_of(body, *lines, **named) != key_of(b'{"n":1}', JSON)


def test_accepting_anything_is_the_same_as_saying_nothing() -> None:
    assert key_of(b"{}", JSON, b"Accept: */*\r\n") == key_of(b"{}", JSON)
    assert read_asking([b"accept: */*\r\n"], NONE).lines == [b"Accept-Encoding: identity\r\n"]


def test_head_asks_for_what_get_has() -> None:
    assert key_of(b"", method=b"HEAD") == key_of(b"", method=b"GET")


def test_a_body_that_is_no_json_counts_byte_by_byte() -> None:
    assert key_of(b'{"a": 1}', b"Content-Type: text/plain\r\n") != key_of(b'{"a":1}', b"Content-Type: text/plain\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":',
        b'"\\ud800"',
        b"\xff",
        b"[" * 100_000,
        '{"\u00e9": 1, "e\u0301": 2}'.encode(),  # two names that become one
    ],
)
def test_what_can_not_be_read_without_a_doubt_is_not_read(body: bytes) -> None:
    assert canonical(body) is None


@pytest.mark.parametrize(
    "number", [b"1.0", b"1.00", b"123456789.123456789123456789", b"12345678901234567890123", b"-0.0"]
)
def test_a_number_goes_out_as_it_came(number: bytes) -> None:
    assert spelling(b'{ "n": %b }' % number) == b'{"n":%b}' % number


def test_a_name_given_twice_exists_only_as_it_was_read() -> None:
    assert spelling(b'{"a": 1, "a": 2}') == b'{"a":2}'


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('aक़éक़é\n"\\'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=10,
)


@given(json_values, st.sampled_from([None, 1, 3]), st.booleans())
def test_every_way_to_write_a_value_has_one_spelling(value: Any, indent: int | None, escaped: bool) -> None:
    written = json.dumps(value, indent=indent, ensure_ascii=escaped).encode()
    assert spelling(written) == spelling(json.dumps(value, sort_keys=True).encode())


@given(json_values)
def test_every_text_in_a_spelling_is_composed(value: Any) -> None:
    def texts(data: Any) -> Iterator[str]:
        if isinstance(data, str):
            yield data
        elif isinstance(data, list | dict):
            for one in data:
                yield from texts(one)
                if isinstance(data, dict):
                    yield from texts(data[one])

    for text in texts(json.loads(spelling(json.dumps(value).encode()))):
        assert unicodedata.is_normalized("NFC", text)


def test_a_long_body_that_is_not_composed_counts_byte_by_byte() -> None:
    assert canonical('"{}"'.format("e\u0301" * 20_000).encode()) is not None
    assert canonical('"{}"'.format("e\u0301" * 30_000).encode()) is None
    assert canonical('"{}"'.format("\u00e9" * 100_000).encode()) is not None


def test_only_what_is_in_the_key_reaches_the_provider() -> None:
    asking = read_asking(
        [JSON, b"X-Forwarded-Host: evil\r\n", b"X-Model: a\r\n", b"Cookie: a=b\r\n", b"User-Agent: x\r\n",
         b"traceparent: 00-1\r\n", b"Accept-Encoding: br\r\n", b"If-None-Match: \"a\"\r\n", b"Cache-Control: x\r\n"],
        frozenset({b"x-model"}),
    )  # fmt: skip
    assert asking.lines == [JSON, b"X-Model: a\r\n", b"traceparent: 00-1\r\n", b"Accept-Encoding: identity\r\n"]
    assert asking.tags == b'"a"'


@pytest.mark.parametrize(
    ("line", "refresh", "untouched", "max_age"),
    [
        (b"Cache-Control: no-cache\r\n", True, False, -1),
        (b"Pragma: no-cache\r\n", True, False, -1),
        (b"cache-control: No-Store\r\n", False, True, -1),
        (b"Cache-Control: private, max-age=60\r\n", False, False, 60),
        (b"Range: bytes=0-1\r\n", False, True, -1),
        (b"If-Match: *\r\n", False, True, -1),
        (b"Content-Encoding: gzip\r\n", False, True, -1),
        (b"Accept: */*\r\n", False, False, -1),
    ],
)
def test_a_caller_says_how_it_wants_the_cache(line: bytes, refresh: bool, untouched: bool, max_age: int) -> None:
    asking = read_asking([line], NONE)
    assert (asking.refresh, asking.untouched, asking.max_age) == (refresh, untouched, max_age)


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([], 100),
        ([b"Cache-Control: public\r\n"], 100),
        ([b"Cache-Control: max-age=30\r\n"], 30),
        ([b"Cache-Control: max-age=300\r\n"], 100),
        ([b"Cache-Control: max-age=30, s-maxage=50\r\n"], 50),
        ([b"Cache-Control: max-age=30\r\n", b"Age: 10\r\n"], 20),
        ([b"Cache-Control: max-age=30\r\n", b"Age: 31\r\n"], 0),
        ([b"Cache-Control: max-age=0\r\n"], 0),
        ([b"Cache-Control: No-Store\r\n"], 0),
        ([b'cache-control: max-age=5, private="x"\r\n'], 0),
        ([b"Cache-Control: no-cache\r\n"], 0),
        ([b"Set-Cookie: a=b\r\n"], 0),
        ([b"Vary: Accept, accept-language, Accept-Encoding, X-Model\r\n"], 100),
        ([b"Vary: Origin\r\n"], 0),
        ([b"Vary: *\r\n"], 0),
        ([b"Content-Encoding: gzip\r\n"], 0),
        ([b"Content-Encoding: identity\r\n"], 100),
    ],
)
def test_a_providers_headers_can_only_shorten_what_its_listing_says(lines: list[bytes], seconds: int) -> None:
    assert lifetime(lines, 100, frozenset({b"x-model"})) == seconds


def test_the_cache_speaks_for_itself() -> None:
    lines = [b"Date: x\r\n", b"ETag: a\r\n", b"x-cache: HIT\r\n", b"Cache-Control: public\r\n", b"Age: 1\r\n", JSON]
    assert kept_lines(lines) == [b"Date: x\r\n", JSON]


def test_a_tag_changes_with_bytes_type_and_rules() -> None:
    tags = [
        entity_tag(SPACE, [JSON], b"1"),
        entity_tag(SPACE, [JSON], b"2"),
        entity_tag(SPACE, [b"Content-Type: text/plain\r\n"], b"1"),
        entity_tag(b"other", [JSON], b"1"),
    ]
    assert len(set(tags)) == 4
    assert tags[0] == entity_tag(SPACE, [b"Date: x\r\n", JSON], b"1")


@pytest.mark.parametrize("tags", [b'"a"', b'W/"a"', b'"b", W/"a"', b"*", b'"b" , "a"'])
def test_if_none_match_compares_weakly(tags: bytes) -> None:
    assert matches(tags, b'"a"') and not matches(b'"b", "ab"', b'"a"')
