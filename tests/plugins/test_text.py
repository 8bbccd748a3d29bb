import gzip
import json
import zlib
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.plugins.text import MAX_PLAIN, Unreadable, rewrite, unfold


def shout(text: str, key: str) -> str:
    return text.replace("quiet", "LOUD")


def test_strings_of_json_change_and_nothing_else_does() -> None:
    body = b'{ "quiet" : "quiet!", "n": 1.50, "big":123456789012345678901,\n "l":["quiet", true, "a\\"quiet\\u0041"] }'
    assert rewrite(body, "application/json", shout) == (
        b'{ "quiet" : "LOUD!", "n": 1.50, "big":123456789012345678901,\n "l":["LOUD", true, "a\\"LOUDA"] }'
    )


def test_a_value_is_given_with_the_key_it_stands_under() -> None:
    seen: list[tuple[str, str]] = []

    def note(text: str, key: str) -> str:
        seen.append((key, text))
        return text

    rewrite(b'{"a":"1","b":{"c":["2","3"]},"d":4}', "application/json; charset=utf-8", note)
    assert seen == [("a", "1"), ("c", "2"), ("c", "3")]


@pytest.mark.parametrize("kind", ["application/json", "application/problem+json", "", "text/plain"])
def test_where_nothing_matches_the_very_same_bytes_come_back(kind: str) -> None:
    body = '{"a": "नमस्ते", "b": [1e400, "\\ud83d\\ude00"]}'.encode()
    assert rewrite(body, kind, shout) is body


def test_what_only_pretends_to_be_json_is_read_as_text() -> None:
    assert rewrite(b"{'a': 'quiet'}", "application/json", shout) == b"{'a': 'LOUD'}"
    assert rewrite(b'{"a": "quiet', "application/json", shout) == b'{"a": "LOUD'
    assert rewrite(b"[" * 5000 + b"quiet", "application/json", shout) == b"[" * 5000 + b"LOUD"


def test_letters_outside_ascii_stay_escaped_where_they_were() -> None:
    assert rewrite(b'["\\u0928 quiet"]', "application/json", shout) == b'["\\u0928 LOUD"]'
    assert rewrite('["न quiet"]'.encode(), "application/json", shout) == '["न LOUD"]'.encode()


def test_forms_change_in_their_values() -> None:
    body = b"quiet=1&a=very+quiet%21&b=%E0%A4%A8"
    assert rewrite(body, "application/x-www-form-urlencoded", shout) == b"quiet=1&a=very+LOUD%21&b=%E0%A4%A8"


def test_json_that_is_sent_as_a_form_is_json() -> None:
    body = b'{"quiet": "quiet=1&b"}'
    assert rewrite(body, "application/x-www-form-urlencoded", shout) == b'{"quiet": "LOUD=1&b"}'


def test_parts_of_a_form_change_and_files_do_not() -> None:
    body = (
        b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\nquiet\r\n'
        b'--xx\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\nquiet\r\n'
        b'--xx\r\nContent-Disposition: form-data; name="j"; filename="j"\r\nContent-Type: application/json\r\n\r\n'
        b'["quiet"]\r\n'
        b"--xx--\r\n"
    )
    changed = rewrite(body, 'multipart/form-data; boundary="xx"', shout)
    assert changed.count(b"LOUD") == 2
    assert changed.replace(b"LOUD", b"quiet") == body
    assert b'"f.bin"\r\n\r\nquiet' in changed


def test_lines_of_json_are_each_json() -> None:
    assert rewrite(b'{"a":"quiet"}\n\n{"quiet":2}\n', "application/x-ndjson", shout) == b'{"a":"LOUD"}\n\n{"quiet":2}\n'


@pytest.mark.parametrize("kind", ["audio/wav", "image/png", "application/octet-stream"])
def test_what_is_no_text_is_left_alone(kind: str) -> None:
    assert rewrite(b"quiet", kind, shout) == b"quiet"


@pytest.mark.parametrize("charset", ["utf-16-le", "latin-1", "windows-1252", "nonsense"])
def test_other_charsets_come_back_as_they_came(charset: str) -> None:
    coded = "latin-1" if charset == "nonsense" else charset
    assert rewrite("é quiet".encode(coded), f"text/plain; charset={charset}", shout) == "é LOUD".encode(coded)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_has_all_its_strings_changed(value: object) -> None:
    def double(item: object) -> object:
        if isinstance(item, str):
            return item + item
        if isinstance(item, list):
            return [double(one) for one in item]
        if isinstance(item, dict):
            return {key: double(one) for key, one in item.items()}
        return item

    for ascii_only in (True, False):
        body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        changed = rewrite(body, "application/json", lambda text, key: text + text)
        if body.decode("utf-8", "replace").encode() == body:
            assert json.loads(changed) == double(value)


@given(st.lists(st.tuples(st.text("ab", min_size=1), st.text())))
def test_any_form_keeps_its_names(pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import urlencode

    body = urlencode(pairs, errors="replace").encode()
    changed = rewrite(body, "application/x-www-form-urlencoded", lambda text, key: text.upper())
    names = [name for name, _ in parse_qsl(body.decode(), keep_blank_values=True)]
    assert [name for name, _ in parse_qsl(changed.decode(), keep_blank_values=True)] == names


@pytest.mark.parametrize(
    ("coding", "packed"),
    [("gzip", gzip.compress(b"plain")), ("deflate", zlib.compress(b"plain"))],
    ids=["gzip", "deflate"],
)
def test_compressed_bodies_are_unfolded(coding: str, packed: bytes) -> None:
    assert unfold(packed, coding) == b"plain"
    with pytest.raises(Unreadable):
        unfold(packed[:-3], coding)


def test_a_body_that_unfolds_to_too_much_is_not_looked_into() -> None:
    with pytest.raises(Unreadable):
        unfold(gzip.compress(bytes(MAX_PLAIN + 1)), "gzip")
    with pytest.raises(Unreadable):
        unfold(b"x", "br")
