"""In which order plugins and built-in stages come. Pure: names, numbers and wishes in, an order out."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Place:
    """Where something wants to be: by tier first (pluggy's tryfirst, neither, trylast), then by number, then name."""

    name: str
    order: int
    tier: int = 1
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def arrange(stages: Sequence[Place], plugins: Iterable[Place]) -> tuple[list[str], list[str]]:
    """Return the names in order, and those that wish for something that contradicts itself.

    Stages keep the order they are given in. A wish about a name that isn't there is void.
    """
    places = {place.name: place for place in (*stages, *plugins)}
    follows: dict[str, set[str]] = {name: set() for name in places}
    for earlier, later in pairwise(stages):
        follows[earlier.name].add(later.name)
    for place in places.values():
        for later_name in place.before:
            if later_name in places:
                follows[place.name].add(later_name)
        for earlier_name in place.after:
            if earlier_name in places:
                follows[earlier_name].add(place.name)
    waits = dict.fromkeys(places, 0)
    for followers in follows.values():
        for name in followers:
            waits[name] += 1
    ranks = _ranks(places)
    ready = [(ranks[name], name) for name, count in waits.items() if count == 0]
    heapq.heapify(ready)
    arranged: list[str] = []
    while ready:
        _, name = heapq.heappop(ready)
        arranged.append(name)
        for follower in follows[name]:
            waits[follower] -= 1
            if waits[follower] == 0:
                heapq.heappush(ready, (ranks[follower], follower))
    caught = [name for name in places if name not in set(arranged)]
    if not caught:
        return arranged, []
    fixed = {stage.name for stage in stages}
    left_out = [name for name in caught if name not in fixed and _reaches(name, name, follows)]
    kept = [place for name, place in places.items() if name not in fixed and name not in left_out]
    return arrange(stages, kept)[0], left_out


def without_needs(requires: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the plugins that can't run because one they require doesn't, each with the name that is missing."""
    missing: dict[str, str] = {}
    changed = True
    while changed:
        changed = False
        for name, needed in requires.items():
            if name in missing:
                continue
            lacking = next((other for other in needed if other not in requires or other in missing), None)
            if lacking is not None:
                missing[name] = lacking
                changed = True
    return missing


def _reaches(start: str, end: str, follows: Mapping[str, set[str]]) -> bool:
    seen: set[str] = set()
    ahead = list(follows[start])
    while ahead:
        name = ahead.pop()
        if name == end:
            return True
        if name not in seen:
            seen.add(name)
            ahead += follows[name]
    return False


def _ranks(places: Mapping[str, Place]) -> dict[str, tuple[int, int]]:
    """Return tier and number of each, pulled ahead to what it wants to come before; waiting pulls nobody."""
    ranks = {name: (place.tier, place.order) for name, place in places.items()}
    changed = True
    while changed:
        changed = False
        for name, place in places.items():
            least = min((ranks[other] for other in place.before if other in ranks), default=ranks[name])
            if least < ranks[name]:
                ranks[name], changed = least, True
    return ranks
