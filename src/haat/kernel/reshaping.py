"""Changes to the shape of JSON: what a version's provider declares, and the gateway does to each call.

A path is dotted, with ``[]`` for every item of a list and ``[0]`` for one: ``input[].text``, ``choices[0]``.
What a change doesn't find it leaves alone; what has another shape than the path says is an error.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal

Do = Literal["set_header", "remove_header", "set", "remove", "rename", "move"]
Part = str | int | None
"""Of a path: a key, a place in a list, or None for every place."""

EVERY: Final = None
MAX_CHANGES = 32
MAX_PARTS = 16
MAX_PLACES = 10_000
"""So many places of one document a single change may touch."""

_PIECE = re.compile(r"([^.\[\]]{1,64})|\[([0-9]{0,4})\]")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1000}")
_OURS = re.compile(
    r"(?i)(?:connection|content-(?:encoding|length)|expect|host|keep-alive|te|trailer|transfer-encoding|upgrade"
    r"|authorization|api-version|cookie|deprecation|retry-after|server|set-cookie|strict-transport-security|sunset"
    r"|trace(?:parent|state)|www-authenticate|x-api-key|x-content-type-options|x-request-id"
    r"|(?:access-control|proxy|ratelimit|x-haat|x-ratelimit)(?:-.*)?)"
)


class Misshapen(ValueError):
    """A document isn't of the shape that a change expects; the message names the place."""


def parse_path(text: str) -> tuple[Part, ...]:
    """Return the parts of a path; raise ValueError for what isn't one."""
    parts: list[Part] = []
    at, key_may_follow = 0, True
    while at < len(text):
        if text[at] == "." and parts and not key_may_follow:
            at, key_may_follow = at + 1, True
            if at == len(text) or text[at] == "[":
                raise ValueError(f"`{text}` has a dot that leads nowhere")
        match = _PIECE.match(text, at)
        if match is None or (match[1] is not None and not key_may_follow):
            raise ValueError(f"`{text}` is not a path such as `config.source` or `input[].text`")
        if match[1] is not None:
            parts.append(match[1])
        else:
            parts.append(int(match[2]) if match[2] else EVERY)
        at, key_may_follow = match.end(), False
    if not parts or len(parts) > MAX_PARTS:
        raise ValueError(f"a path has 1 to {MAX_PARTS} parts")
    return tuple(parts)


def check(do: Do, path: str, to: str, value: Any) -> None:
    """Raise ValueError, with a sentence for its author, for a change that can't be made."""
    if do in ("set_header", "remove_header"):
        if not _HEADER.fullmatch(path) or _OURS.fullmatch(path):
            raise ValueError(f"`{path}` is no header that a version may change")
        if do == "set_header" and not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value)):
            raise ValueError("a header's `value` is text in ASCII")
        if to:
            raise ValueError("`to` belongs to `rename` and `move`")
        return
    parts = parse_path(path)
    if do == "rename":
        if not isinstance(parts[-1], str):
            raise ValueError("only what has a name can be renamed")
        if len(parse_path(to)) != 1 or not isinstance(parse_path(to)[0], str):
            raise ValueError("`to` is the new name alone; use `move` to go elsewhere")
    elif do == "move":
        if parts.count(EVERY) != parse_path(to).count(EVERY):
            raise ValueError("`path` and `to` need the same number of `[]`")
    elif to:
        raise ValueError("`to` belongs to `rename` and `move`")


Change = Callable[[Any], None]


def compile_change(do: Do, path: str, to: str, value: Any) -> Change:
    """Return a function that makes the change in a document in place; it raises Misshapen."""
    check(do, path, to, value)
    parts = parse_path(path)
    if do == "set":
        return lambda document: _set_all(document, parts, value)
    if do == "remove":
        return lambda document: _take_all(document, parts).clear()
    target = (*parts[:-1], to) if do == "rename" else parse_path(to)
    return lambda document: _move(document, parts, target)


class Reshaping:
    """Several changes, each a mapping of ``do``, ``path``, ``to`` and ``value``, as a try of a version makes them."""

    def __init__(self, changes: Sequence[Mapping[str, Any]] = ()) -> None:
        self._headers = [change for change in changes if change["do"] in ("set_header", "remove_header")]
        self._changes = [
            compile_change(change["do"], change["path"], change["to"], change["value"])
            for change in changes
            if change["do"] not in ("set_header", "remove_header")
        ]

    @property
    def changes_documents(self) -> bool:
        return bool(self._changes)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers as they should be."""
        changed = dict(headers)
        for change in self._headers:
            changed = {name: value for name, value in changed.items() if name.lower() != change["path"].lower()}
            if change["do"] == "set_header":
                changed[change["path"]] = change["value"]
        return changed

    def document(self, document: Any) -> Any:
        """Return a changed copy of a document; raise Misshapen."""
        if not self._changes:
            return document
        changed = copy.deepcopy(document)
        for change in self._changes:
            change(changed)
        return changed


# --- in a document ------------------------------------------------------------------------------


def _take_all(document: Any, path: tuple[Part, ...]) -> list[tuple[tuple[int, ...], Any]]:
    """Take out what a path leads to; return each value with the places that its ``[]`` stood for, in order."""
    found = _places(document, path)
    taken = [(places, parent[last]) for parent, last, places in found]
    for parent, last, _ in reversed(found):  # from the end, so that places in lists stay right
        del parent[last]
    return taken


def _move(document: Any, source: tuple[Part, ...], target: tuple[Part, ...]) -> None:
    for places, value in _take_all(document, source):
        bound = iter(places)
        _set(document, [next(bound) if part is None else part for part in target], value)


def _set_all(document: Any, path: tuple[Part, ...], value: Any) -> None:
    if EVERY not in path:
        _set(document, [part for part in path if part is not None], value)
        return
    last = len(path) - 1 - path[::-1].index(EVERY)
    for _, _, places in _places(document, path[: last + 1]):
        bound = iter(places)
        _set(document, [next(bound) if part is None else part for part in path], copy.deepcopy(value))


def _places(document: Any, path: tuple[Part, ...]) -> list[tuple[Any, str | int, tuple[int, ...]]]:
    found = list(islice(_find(document, path, 0, ()), MAX_PLACES + 1))
    if len(found) > MAX_PLACES:
        raise Misshapen(f"`{_written(path)}` leads to more than {MAX_PLACES} places")
    return found


def _find(
    node: Any, path: tuple[Part, ...], at: int, places: tuple[int, ...]
) -> Iterator[tuple[Any, str | int, tuple[int, ...]]]:
    """Yield parent, last part and places of everything that a path leads to."""
    if node is None:
        return
    part = path[at]
    inside: list[str | int]
    if isinstance(part, str):
        inside = [part] if part in _of_kind(node, dict, path, at) else []
    else:
        length = len(_of_kind(node, list, path, at))
        inside = list(range(length)) if part is None else [part] if part < length else []
    for key in inside:
        further = (*places, key) if part is None and isinstance(key, int) else places
        if at == len(path) - 1:
            yield node, key, further
        else:
            yield from _find(node[key], path, at + 1, further)


def _set(document: Any, path: Sequence[str | int], value: Any) -> None:
    """Put a value at a place, making the objects and lists that lead there; gaps in a list become null."""
    node = document
    for at, part in enumerate(path):
        container = _of_kind(node, dict if isinstance(part, str) else list, path, at)
        if isinstance(part, int):
            if part > len(container) + MAX_PLACES:
                raise Misshapen(f"`{_written(path)}` is too far beyond the end of its list")
            container.extend([None] * (part + 1 - len(container)))
        if at == len(path) - 1:
            container[part] = value
            return
        node = container.get(part) if isinstance(part, str) else container[part]
        if node is None:
            node = container[part] = {} if isinstance(path[at + 1], str) else []


def _of_kind(node: Any, kind: type, path: Sequence[Part], at: int) -> Any:
    if not isinstance(node, kind):
        name = "an object" if kind is dict else "a list"
        raise Misshapen(f"`{_written(path[:at]) or 'the body'}` is not {name}")
    return node


def _written(path: Sequence[Part]) -> str:
    text = "".join(f".{part}" if isinstance(part, str) else "[]" if part is None else f"[{part}]" for part in path)
    return text.removeprefix(".")
