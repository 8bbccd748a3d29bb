"""Finding the text in bodies, and changing only that: whatever is left alone stays as it is, byte by byte.

A body that says it is JSON is not parsed and written again, which would change numbers, order and space:
the strings in it are found where they stand. Keys and numbers are never touched.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from email.message import Message as MimeMessage
from urllib.parse import quote_plus, unquote_plus

import msgspec

Change = Callable[[str, str], str]
"""Takes a piece of text and the key it stands under (or an empty text), returns what takes its place."""

MAX_PLAIN = 32 * 1024 * 1024
"""The most bytes that a compressed body may unfold to before nobody looks into it."""

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_COLON = re.compile(r"[ \t\r\n]*:")
_raw = msgspec.json.Decoder(msgspec.Raw)
_TEXT_TYPES = frozenset({"application/xml", "application/javascript", "application/graphql", "application/yaml"})
_LINED_JSON = frozenset({"application/x-ndjson", "application/jsonl", "application/json-lines"})


class Unreadable(ValueError):
    """The body can't be looked into: its coding is unknown or broken, or it unfolds to too much."""


def media_type(value: str) -> tuple[str, str, str]:
    """Return type, charset and boundary of a Content-Type in small letters (the boundary as it is)."""
    if ";" not in value:
        return value.strip().lower(), "utf-8", ""
    header = MimeMessage()
    header["Content-Type"] = value
    charset = header.get_param("charset", "utf-8")
    boundary = header.get_param("boundary", "")
    return value.partition(";")[0].strip().lower(), str(charset).lower(), str(boundary)


def rewrite(body: bytes, content_type: str, change: Change) -> bytes:
    """Return the body with ``change`` applied to every piece of text in it; the same object if nothing changed."""
    kind, charset, boundary = media_type(content_type)
    if kind == "multipart/form-data":
        return _rewrite_parts(body, boundary, change)
    if not _is_text(kind, body):
        return body
    text, charset = _decode(body, charset)
    changed = rewrite_text(text, kind, change)
    return body if changed is text else changed.encode(charset, "surrogatepass" if charset == "utf-8" else "strict")


def rewrite_text(text: str, kind: str, change: Change) -> str:
    """Do the same with a decoded body of a media type."""
    looks_like_json = text.lstrip()[:1] in ("{", "[")
    if kind == "application/x-www-form-urlencoded" and not looks_like_json:  # curl calls everything a form
        return _rewrite_form(text, change)
    if kind in _LINED_JSON:
        lines = text.split("\n")
        changed = [_rewrite_json(line, change) for line in lines]
        return text if all(new is old for new, old in zip(changed, lines, strict=True)) else "\n".join(changed)
    if kind == "application/json" or kind.endswith("+json") or (not kind.startswith("text/") and looks_like_json):
        return _rewrite_json(text, change)
    return _changed(text, "", change)


def unfold(body: bytes, coding: str) -> bytes:
    """Undo a Content-Encoding; raise Unreadable."""
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Unreadable(f"the content coding {coding} can't be undone here")
    try:
        unfolding = zlib.decompressobj(47 if coding != "deflate" else zlib.MAX_WBITS)
        plain = unfolding.decompress(body, MAX_PLAIN)
    except zlib.error as error:
        raise Unreadable(f"the body is not {coding}") from error
    if unfolding.unconsumed_tail or not unfolding.eof:
        raise Unreadable("the body unfolds to too much, or breaks off")
    return plain


def _is_text(kind: str, body: bytes) -> bool:
    if not kind:
        return b"\0" not in body[:1024]
    return (
        kind.startswith("text/")
        or kind == "application/json"
        or kind.endswith(("+json", "+xml"))
        or kind == "application/x-www-form-urlencoded"
        or kind in _LINED_JSON
        or kind in _TEXT_TYPES
    )


def _decode(body: bytes, charset: str) -> tuple[str, str]:
    """Return the text and the charset that gives the same bytes back."""
    for known in (charset, "utf-8"):
        try:
            text = body.decode(known)
            if text.encode(known) == body:
                return text, known
        except (LookupError, UnicodeError):
            continue
    return body.decode("latin-1"), "latin-1"  # not the right letters, but all digits and addresses in ASCII


def _changed(text: str, key: str, change: Change) -> str:
    new = change(text, key)
    return text if new == text else new


def _rewrite_json(text: str, change: Change) -> str:
    try:
        _raw.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return _changed(text, "", change)  # what only pretends to be JSON is read as text: nothing slips by
    parts: list[str] = []
    at, key = 0, ""
    for match in _STRING.finditer(text):
        token = match.group()
        if _COLON.match(text, match.end()):
            key = token[1:-1]
            continue
        value = json.loads(token) if "\\" in token else token[1:-1]
        new = change(value, key)
        if new != value:
            parts += (text[at : match.start()], json.dumps(new, ensure_ascii=token.isascii()))
            at = match.end()
    return "".join((*parts, text[at:])) if parts else text


def _rewrite_form(text: str, change: Change) -> str:
    pairs, changed = [], False
    for pair in text.split("&"):
        name, equals, value = pair.partition("=") if "=" in pair else ("", "", pair)
        plain = unquote_plus(value)
        new = change(plain, unquote_plus(name)) if plain else plain
        if new != plain:
            pair, changed = f"{name}{equals}{quote_plus(new)}", True
        pairs.append(pair)
    return "&".join(pairs) if changed else text


def _rewrite_parts(body: bytes, boundary: str, change: Change) -> bytes:
    """Change the text fields of a form; files are left alone unless they say that they are text."""
    if not boundary:
        raise Unreadable("the form names no boundary")
    parts = body.split(b"--" + boundary.encode("latin-1", "replace"))
    changed = False
    for number, part in enumerate(parts):
        head, blank, content = part.partition(b"\r\n\r\n")
        if not blank:
            continue
        header = head.decode("latin-1")
        said = re.search(r"(?im)^content-type:[ \t]*([^\r\n]+)", header)
        kind = said[1] if said else "application/octet-stream" if "filename" in header.lower() else "text/plain"
        named = re.search(r'(?i)\bname="([^"]{0,200})"', header)
        key = named[1] if named else ""
        inner = content.removesuffix(b"\r\n")
        new = rewrite(inner, kind, lambda text, under, key=key: change(text, under or key))  # type: ignore[misc]
        if new is not inner:
            changed = True
            parts[number] = head + blank + new + content[len(inner) :]
    return (b"--" + boundary.encode("latin-1", "replace")).join(parts) if changed else body
