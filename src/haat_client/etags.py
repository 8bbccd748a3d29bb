"""Answers that may be kept: asked for again with ``If-None-Match``, and given again when nothing has changed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple


class Kept(NamedTuple):
    """An answer with its tag."""

    tag: str
    headers: Mapping[str, str]
    body: bytes


class ETags:
    """At most ``most`` answers of at most ``size`` bytes; the one not used for longest goes first. For any thread."""

    def __init__(self, most: int = 256, size: int = 1024 * 1024) -> None:
        self._most, self._size = most, size
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, place: str) -> Kept | None:
        with self._lock:
            kept = self._kept.get(place)
            if kept is not None:
                self._kept.move_to_end(place)
            return kept

    def keep(self, place: str, headers: Mapping[str, str], body: bytes) -> None:
        """Keep a good answer, unless it says that it must not be or has no tag."""
        tag, control = headers.get("etag", ""), headers.get("cache-control", "").lower()
        with self._lock:
            self._kept.pop(place, None)
            if tag and "no-store" not in control and len(body) <= self._size:
                self._kept[place] = Kept(tag, headers, body)
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
