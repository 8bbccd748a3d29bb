"""Lines of JSON as they come: one item each, checked before anything is done with them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import msgspec

from haat.jobs.model import MAX_LINE_BYTES, wrong_line

_object = msgspec.json.Decoder(dict[str, Any])


async def lines_of(content: AsyncIterable[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Yield each line with its number from 1, without those that are empty; raise InvalidRequest for one too long."""
    rest, number = bytearray(), 0
    async for data in content:
        rest += data
        if b"\n" in data:
            *whole, last = rest.split(b"\n")
            rest = bytearray(last)
            for line in whole:
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise wrong_line(number, f"has more than {MAX_LINE_BYTES:,} bytes")
                if stripped := bytes(line).strip():
                    yield number, stripped
        elif len(rest) > MAX_LINE_BYTES:
            raise wrong_line(number + 1, f"has more than {MAX_LINE_BYTES:,} bytes")
    if stripped := bytes(rest).strip():
        yield number + 1, stripped


def read_object(number: int, line: bytes) -> dict[str, Any]:
    """Return the JSON object on a line; raise InvalidRequest that names the line."""
    try:
        return _object.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise wrong_line(number, "is not a JSON object") from error
