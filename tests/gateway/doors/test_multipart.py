"""Forms are read wherever the network cuts them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.doors.forms import BOUNDARY, form
from haat.gateway.doors.multipart import MAX_PART_HEAD, MOST_PARTS, Multipart, boundary_of
from haat.kernel.errors import InvalidRequest

_content = st.binary(max_size=60) | st.sampled_from([b"", b"\r\n", b"--", b"\r\n--", b"\r\n--bounds", b"-" * 50])


def read(body: bytes, cuts: list[int]) -> Multipart:
    found, at = Multipart(BOUNDARY), 0
    for cut in sorted({min(cut, len(body)) for cut in cuts}):
        found.feed(body[at:cut])
        at = cut
    found.feed(body[at:])
    return found


@given(
    st.lists(st.tuples(st.sampled_from(["model", "a b", "file"]), _content), max_size=5), st.lists(st.integers(0, 600))
)
def test_the_parts_are_found_wherever_the_body_is_cut(fields: list[tuple[str, bytes]], cuts: list[int]) -> None:
    body = form(*((name, None, content) for name, content in fields))
    found = read(body, cuts)
    assert found.ended
    assert [(part.name, body[part.start : part.end]) for part in found.parts] == fields


def test_a_file_has_a_name_and_a_field_has_none() -> None:
    found = read(form(("model", None, b"x"), ("file", 'a";b.wav', b"RIFF")), [])
    assert [part.filename for part in found.parts] == [None, 'a\\";b.wav']


def test_a_part_that_has_not_ended_is_open() -> None:
    body = form(("model", None, b"x"), ("file", "a.wav", b"RIFF"))
    found = read(body[: body.index(b"RIFF") + 2], [])
    assert [part.name for part in found.parts] == ["model"]
    assert found.open is not None and found.open.name == "file"
    assert not found.ended


@pytest.mark.parametrize(
    "body",
    [
        b"--%b\r\nContent-Type: text/plain\r\n\r\nx" % BOUNDARY,
        b"--%b\r\nContent-Disposition: form-data\r\n\r\nx" % BOUNDARY,
        b"--%b\r\nX: %b" % (BOUNDARY, b"y" * MAX_PART_HEAD),
        b"--%bmore\r\n\r\n" % BOUNDARY,
        b"--%b%b" % (BOUNDARY, b" " * 100),
        form(*[("a", None, b"")] * (MOST_PARTS + 1)),
    ],
    ids=["nameless", "undisposed", "endless head", "longer boundary", "padding", "parts"],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(body, [])


@given(st.binary(max_size=300))
def test_nothing_but_a_refusal_comes_of_any_bytes(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        read(b"--" + BOUNDARY + body, [])


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'Multipart/Form-Data; charset=utf-8; Boundary="a b"', b"a b"),
        (b"multipart/form-data", b""),
        (b"multipart/mixed; boundary=abc", b""),
        (b"application/json", b""),
    ],
)
def test_the_boundary_is_in_the_header(value: bytes, boundary: bytes) -> None:
    assert boundary_of([b"X: y\r\n", b"content-type: %b\r\n" % value]) == boundary
