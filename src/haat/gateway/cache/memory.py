"""What the gateway remembers of answers: bounded in bytes, the longest unused goes first.

A space is what one version of one service says at present. Whatever it says goes into the keys, so a
new version, another default version or a changed policy finds nothing of before; what is left of a
space that the market has given up is removed by `sweep`, a part each tick.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from haat.gateway.cache.batch import Micro
from haat.gateway.cache.keys import digest, entity_tag
from haat.gateway.call import NO_UNITS
from haat.gateway.clock import SECOND
from haat.gateway.market.policy import CachePolicy
from haat.gateway.market.snapshot import Directory, Service, Version

if TYPE_CHECKING:
    from haat.gateway.cache.step import Question

LARGEST_PART = 16
"""An answer may take up this part of the cache at most, so that none pushes out all others."""
_SLOT = 150
"""Bytes that an entry costs beside its own objects: its place in the table and in the order of use."""
_SWEPT_AT_ONCE = 2000
_PASSED_SECONDS = 60
_MOST_PASSED = 4096


class Space:
    """The keys of one version of one service, as long as it and its listing's policy stay as they are."""

    __slots__ = ("digest", "given_up", "hits", "misses", "names", "partial", "path", "policy", "service", "version")

    def __init__(self, service: Service, version: Version, policy: CachePolicy) -> None:
        self.service, self.version, self.policy = service.id, version.version, policy
        self.path = f"{service.path}@{version.version}"
        self.names = frozenset(name.lower().encode("ascii") for name in policy.headers)
        self.digest = space_digest(service, version, policy)
        self.given_up = False
        self.hits = 0
        self.partial = 0
        self.misses = 0


def space_digest(service: Service, version: Version, policy: CachePolicy) -> bytes:
    """Return a name for all that is said of a version, and of the one that it only adapts, if it does."""
    served = [one for one in service.versions if one.version == version.policy.serves]
    said = msgspec.json.encode([service.id, service.policy.cache_generation, policy, version, served])
    return digest(said, size=16)


class Entry:
    """Something known. Times are the gateway clock's microseconds; ``size`` is all memory it takes."""

    __slots__ = ("expires_at", "key", "size", "space", "stored_at")

    def __init__(self, space: Space, key: bytes, stored_at: int, seconds: int) -> None:
        self.space, self.key = space, key
        self.stored_at = stored_at
        self.expires_at = stored_at + seconds * SECOND
        self.size = 0

    def age(self, now: int) -> int:
        """Return whole seconds since it was stored."""
        return max(0, now - self.stored_at) // SECOND

    def seconds(self) -> int:
        """Return for how long it was stored."""
        return (self.expires_at - self.stored_at) // SECOND


class Answer(Entry):
    """A whole answer with status 200. ``raw_usage`` is what the provider reported with it, in its own words.

    ``counted`` are the units that were counted here for a provider who reports nothing; ``is_counted`` says that
    what stands in ``raw_usage`` was counted here too.
    """

    __slots__ = ("body", "counted", "head", "is_counted", "raw_usage", "tag")

    def __init__(
        self,
        space: Space,
        key: bytes,
        stored_at: int,
        seconds: int,
        lines: list[bytes],
        body: bytes,
        raw_usage: str,
        counted: dict[str, str] = NO_UNITS,
        is_counted: bool = False,
    ) -> None:
        super().__init__(space, key, stored_at, seconds)
        self.head = b"".join(lines)
        self.body = body
        self.raw_usage = raw_usage
        self.counted = counted
        self.is_counted = is_counted or bool(counted)
        self.tag = entity_tag(space.digest, lines, body)
        self.size = _SLOT + _sizes(self, key, self.head, body, self.tag, raw_usage, *counted.items())


class Item(Entry):
    """The output for one input of a batch, as it was spelt, with its part of what the provider reported.

    ``is_counted``: it reported nothing, and the units were counted here.
    """

    __slots__ = ("is_counted", "output", "units", "usage")

    def __init__(
        self,
        space: Space,
        key: bytes,
        stored_at: int,
        seconds: int,
        output: bytes,
        units: Micro,
        usage: Micro,
        is_counted: bool = False,
    ) -> None:
        super().__init__(space, key, stored_at, seconds)
        self.output = output
        self.is_counted = is_counted
        self.units = units
        self.usage = units if usage == units else usage
        self.size = _SLOT + _sizes(self, key, output) + _numbers(units)
        if self.usage is not units:
            self.size += _numbers(usage)


def _sizes(*things: object) -> int:
    return sum(map(sys.getsizeof, things)) + 64  # and the two times, which are numbers of their own


def _numbers(units: Micro) -> int:
    return sys.getsizeof(units) + sum(sys.getsizeof(value) for value in units.values()) if units else 0


class Flight:
    """A question on its way to the provider, and those who asked the same meanwhile."""

    __slots__ = ("key", "losses", "waiting")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.losses = 0
        """How many of those who asked the provider ended without an answer."""
        self.waiting: list[Question] = []


class Cache:
    """One gateway process's memory of answers. ``most`` bounds its bytes; 0 keeps nothing."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.flights: dict[bytes, Flight] = {}
        self.bytes = 0
        self.hits = self.partial = self.misses = self.bypassed = 0
        """Calls."""
        self.coalesced = 0
        """Calls that waited for the answer to another one's same question."""
        self.items_known = self.items_asked = 0
        """Inputs of batches that were answered from the cache, and those that the provider was asked for."""
        self.stored = self.evicted = self.expired = self.unfit = self.removed = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._spaces: dict[bytes, Space] = {}
        self._passed: dict[bytes, int] = {}
        self._generation = -1
        self._sweeping: list[bytes] = []

    # --- entries --------------------------------------------------------------------------------

    def find(self, key: bytes, now: int) -> Entry | None:
        """Return what is known under a key and still good; it counts as used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self._drop(key)
            self.expired += 1
            return None
        self._entries.move_to_end(key)
        return entry

    def keep(self, entry: Entry) -> bool:
        """Store an entry and make room for it; return False for one that doesn't fit or comes too late."""
        if entry.space.given_up or entry.size * LARGEST_PART > self.most or entry.expires_at <= entry.stored_at:
            self.unfit += 1
            return False
        self._drop(entry.key)
        self._entries[entry.key] = entry
        self.bytes += entry.size
        self.stored += 1
        while self.bytes > self.most:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.size
            self.evicted += 1
        return True

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size

    def __len__(self) -> int:
        return len(self._entries)

    # --- questions that nobody should wait for --------------------------------------------------

    def pass_by(self, key: bytes, now: int) -> None:
        """Remember for a minute that the answer to this can't be kept, so that nobody waits for another's."""
        if len(self._passed) >= _MOST_PASSED:
            self._passed.clear()
        self._passed[key] = now + _PASSED_SECONDS * SECOND

    def passes(self, key: bytes, now: int) -> bool:
        until = self._passed.get(key)
        if until is None:
            return False
        if until <= now:
            del self._passed[key]
            return False
        return True

    # --- spaces ---------------------------------------------------------------------------------

    def space(self, service: Service, version: Version, policy: CachePolicy) -> Space:
        """Return the space of a version as it is now."""
        found = self._spaces.get(space_digest(service, version, policy))
        if found is None:
            found = Space(service, version, policy)
            self._spaces[found.digest] = found
        return found

    def sweep(self, directory: Directory) -> None:
        """Give up the spaces that the market no longer has, and remove a part of what they held."""
        if self._generation != directory.services_generation:
            self._generation = directory.services_generation
            if self._spaces and self._give_up(directory):
                self._sweeping = list(self._entries)
        if self._sweeping:
            part, self._sweeping = self._sweeping[-_SWEPT_AT_ONCE:], self._sweeping[:-_SWEPT_AT_ONCE]
            for key in part:
                entry = self._entries.get(key)
                if entry is not None and entry.space.given_up:
                    self._drop(key)
                    self.removed += 1

    def _give_up(self, directory: Directory) -> bool:
        services = {service.id: service for service in directory.services.values()}
        gone = [space for space in self._spaces.values() if not _is_current(space, services.get(space.service))]
        for space in gone:
            space.given_up = True
            del self._spaces[space.digest]
        return bool(gone)

    # --- what it did ----------------------------------------------------------------------------

    def stats(self) -> dict[str, object]:
        """Return counts since the start and the present size, as the status page shows them."""
        asked = self.hits + self.partial + self.misses
        return {
            "bytes": self.bytes,
            "max_bytes": self.most,
            "entries": len(self._entries),
            "hits": self.hits,
            "partial": self.partial,
            "misses": self.misses,
            "bypassed": self.bypassed,
            "hit_rate": round(self.hits / asked, 4) if asked else None,
            "items_known": self.items_known,
            "items_asked": self.items_asked,
            "coalesced": self.coalesced,
            "in_flight": len(self.flights),
            "stored": self.stored,
            "evicted": self.evicted,
            "expired": self.expired,
            "unfit": self.unfit,
            "removed": self.removed,
            "services": {
                space.path: {"hits": space.hits, "partial": space.partial, "misses": space.misses}
                for space in self._spaces.values()
            },
        }


def _is_current(space: Space, service: Service | None) -> bool:
    if service is None or service.status not in ("published", "deprecated") or service.policy.cache is None:
        return False
    version = next((one for one in service.versions if one.version == space.version), None)
    return version is not None and space_digest(service, version, service.policy.cache) == space.digest
