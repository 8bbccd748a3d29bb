"""A batch in the task schema, item by item: take apart, ask for a part, put together again. Pure.

A provider reports units for all items it was asked about together. They are divided among the items
by the length of their texts, in whole units where the report is whole, and always so that the parts
add up to the report exactly.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from haat.gateway.cache.keys import item_key, spell

MICRO = 1_000_000
Micro = dict[str, int]
"""Quantities by unit, in millionths."""
_MOST_ITEMS = 1000
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder(order="sorted").encode
_PLACE = re.compile(r"^input(?:\[(\d+)\]|\.(\d+))(?!\d)")


class Batch:
    """A request's inputs with their keys, and what else its body says."""

    __slots__ = ("items", "keys", "rest")

    def __init__(self, rest: dict[str, Any], items: list[Any], keys: list[bytes]) -> None:
        self.rest, self.items, self.keys = rest, items, keys

    def body(self, places: list[int]) -> bytes:
        """Return the body that asks for the items at these places only."""
        return spell({**self.rest, "input": [self.items[place] for place in places]})


def take_apart(data: Any, space: bytes, selecting: list[bytes]) -> Batch | None:
    """Return a body's batch, or None for one that isn't a batch."""
    if not isinstance(data, dict):
        return None
    items = data.get("input")
    if not isinstance(items, list) or not 1 <= len(items) <= _MOST_ITEMS:
        return None
    rest = {name: value for name, value in data.items() if name != "input"}
    spelt = spell(rest)
    return Batch(rest, items, [item_key(space, selecting, spelt, spell(item)) for item in items])


class Answered:
    """A provider's answer to a batch: one output an item as it was spelt, its usage, and all else."""

    __slots__ = ("others", "outputs", "usage")

    def __init__(self, outputs: list[bytes], usage: Micro, others: dict[str, msgspec.Raw]) -> None:
        self.outputs, self.usage, self.others = outputs, usage, others


def read_answer(body: bytes) -> Answered | None:
    """Return the parts of an answer in the task schema, None when it isn't one."""
    try:
        members = _members.decode(body)
        outputs = [bytes(output) for output in _list.decode(members.pop("output"))]
        usage = _any.decode(members.pop("usage")) if "usage" in members else {}
    except (msgspec.MsgspecError, KeyError, RecursionError, UnicodeError):
        return None
    found: Micro = {}
    if isinstance(usage, dict):
        for name, quantity in usage.items():
            if isinstance(quantity, (int, float)) and not isinstance(quantity, bool) and 0 <= quantity < 1e12:
                found[name] = round(quantity * MICRO)
    return Answered(outputs, found, members)


def put_together(outputs: list[bytes], usage: Micro, others: dict[str, msgspec.Raw] | None = None) -> bytes:
    """Return the body of an answer."""
    members: dict[str, Any] = {**others} if others else {}
    members["output"] = [msgspec.Raw(output) for output in outputs]
    if usage:
        members["usage"] = {name: _number(quantity) for name, quantity in usage.items()}
    return _encode(members)


def _number(quantity: int) -> int | float:
    return quantity // MICRO if quantity % MICRO == 0 else quantity / MICRO


def weight(item: Any) -> int:
    """Return the length of an item's texts in code points, at least 1: what its share of a report goes by."""
    return max(1, _letters(item))


def _letters(item: Any) -> int:
    if isinstance(item, str):
        return len(item)
    if isinstance(item, list):
        return sum(_letters(part) for part in item)
    if isinstance(item, dict):
        return sum(_letters(part) for part in item.values())
    return 0


def apportion(quantity: int, weights: list[int]) -> list[int]:
    """Divide a quantity in millionths by weights; the parts add up to it, largest remainders first."""
    step = MICRO if quantity % MICRO == 0 else 1
    steps, whole = quantity // step, sum(weights)
    parts = [steps * one // whole for one in weights]
    left = steps - sum(parts)
    neediest = sorted(range(len(weights)), key=lambda place: (-(steps * weights[place] % whole), place))
    for place in neediest[:left]:
        parts[place] += 1
    return [part * step for part in parts]


def divide(total: Micro, weights: list[int]) -> list[Micro]:
    """Divide several quantities; a unit of which an item gets nothing is left out of it."""
    shares: list[Micro] = [{} for _ in weights]
    for unit, quantity in total.items():
        for share, part in zip(shares, apportion(quantity, weights), strict=True):
            if part:
                share[unit] = part
    return shares


def add(sums: Micro, more: Micro) -> None:
    for unit, quantity in more.items():
        sums[unit] = sums.get(unit, 0) + quantity


def micro(text: str) -> int:
    """Return a quantity with at most six decimals in millionths."""
    whole, _, fraction = text.partition(".")
    return int(whole) * MICRO + int(fraction.ljust(6, "0") or "0")


def decimal(quantity: int) -> str:
    """Return millionths as decimal text."""
    whole, rest = divmod(quantity, MICRO)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)


def name_places(body: bytes, places: list[int]) -> bytes:
    """Let a refusal (problem+json) of a part of a batch name the items as the caller numbered them."""
    try:
        problem = _any.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return body
    if not isinstance(problem, dict):
        return body
    at = problem.get("input")
    if isinstance(at, int) and not isinstance(at, bool) and 0 <= at < len(places):
        problem["input"] = places[at]
    errors = problem.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict) and isinstance(error.get("field"), str):
            error["field"] = _PLACE.sub(lambda found: _renumber(found, places), error["field"])
    return msgspec.json.encode(problem)


def _renumber(found: re.Match[str], places: list[int]) -> str:
    number = int(found[1] or found[2])
    if number >= len(places):
        return found[0]
    return f"input[{places[number]}]" if found[1] else f"input.{places[number]}"
