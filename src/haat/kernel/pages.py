"""Cursor pagination: an opaque text that names the last row seen."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from haat.kernel.errors import InvalidRequest
from haat.kernel.text import is_storable

T = TypeVar("T")
_FOREIGN = "The cursor is not one of ours: take it from the previous page's `next`."
MAX_PAGE = 100


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and the cursor of the next ones (``None`` at the end)."""

    items: Sequence[T]
    next: str | None


def encode_cursor(*key: Any) -> str:
    """Return the cursor for the sort key of the last row of a page."""
    return base64.urlsafe_b64encode(json.dumps(key, default=str).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, parts: int, *kinds: type) -> list[Any]:
    """Return the sort key in a cursor; raise InvalidRequest for one that we didn't make.

    ``kinds`` are the types of the key's parts, for keys that go on into typed code.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, RecursionError):  # not base64, not UTF-8, not JSON, or nested to make us stumble
        key = None
    if (
        not isinstance(key, list)
        or len(key) != parts
        or not is_storable(key)
        or not all(type(part) is kind for part, kind in zip(key, kinds, strict=False))
    ):
        raise InvalidRequest(_FOREIGN)
    return key


def decode_id_cursor(cursor: str | None) -> UUID | None:
    """Return the id in a cursor, None for the first page; raise InvalidRequest like `decode_cursor`."""
    if cursor is None:
        return None
    try:
        return UUID(decode_cursor(cursor, 1, str)[0])
    except ValueError as error:
        raise InvalidRequest(_FOREIGN) from error


def page_of(rows: Sequence[T], limit: int, key: Callable[[T], tuple[Any, ...]]) -> Page[T]:
    """Make a page of ``limit`` rows from a query that asked for one row more."""
    items = rows[:limit]
    return Page(items, encode_cursor(*key(items[-1])) if len(rows) > limit else None)
