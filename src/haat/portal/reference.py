"""An OpenAPI document as what a page can show: read once, with nothing in it trusted.

A provider wrote the document. Whatever is not of the expected type is passed over; texts, lists and depth end at
limits; a ``$ref`` is followed inside of the document only and never in a circle. Texts stay texts: the page escapes
them, and no address in them becomes a link. OpenAPI 3.0 and 3.1 are read, and of 2.0 what is said alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import unquote

MOST_OPERATIONS = 200
MOST_PARTS = 3000
"""Schemas of a document that are shown, those inside of others counted each time they appear."""
MOST_DEPTH = 8
MOST_MEMBERS = 100
"""Members of one object, parameters or answers of one operation, values of one enumeration."""
MOST_TEXT = 2000
MOST_NAME = 200
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_HOPS = 8
"""How long a chain of references may be."""
_BOUNDS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties"),
)
_CHOICES = ("oneOf", "anyOf", "allOf")
_MOST_NODES = 300
"""Of an example."""
_LARGEST = 10**40
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and marks that would turn the text around them."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a value looks like. ``note`` says why it is not shown: ``again``, ``elsewhere``, ``nowhere`` or ``cut``.

    ``again`` is a schema inside of itself, ``elsewhere`` a reference out of the document, ``nowhere`` one to nothing.
    ``choices`` are the alternatives or parts of ``choice``: ``oneOf``, ``anyOf`` or ``allOf``.
    """

    name: str = ""
    kind: str = ""
    required: bool = False
    description: str = ""
    bounds: tuple[tuple[str, str], ...] = ()
    values: tuple[str, ...] = ()
    default: str = ""
    example: str = ""
    deprecated: bool = False
    members: tuple[Schema, ...] = ()
    choice: str = ""
    choices: tuple[Schema, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    place: str
    """``query``, ``path``, ``header`` or ``cookie``."""
    required: bool
    description: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Content:
    media_type: str
    schema: Schema | None
    example: str


@dataclass(frozen=True, slots=True)
class Answer:
    status: str
    description: str
    contents: tuple[Content, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str
    summary: str
    description: str
    deprecated: bool
    parameters: tuple[Parameter, ...]
    body: tuple[Content, ...]
    body_required: bool
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """A document's readable form. ``cut``: it holds more than is shown."""

    title: str
    version: str
    description: str
    operations: tuple[Operation, ...]
    cut: bool


def read_reference(document: Any) -> Reference:
    """Return the readable form of a document; what can't be read of it is left out, and nothing raises."""
    return _Reader(_map(document)).read()


def at_gateway(document: Mapping[str, Any], address: str) -> dict[str, Any]:
    """Return a document whose calls go to the gateway's address, with none of its own servers in it."""
    copied = {name: value for name, value in document.items() if name not in ("servers", "host", "basePath", "schemes")}
    copied["servers"] = [{"url": address}]
    copied["paths"] = {
        path: {name: _without_servers(one) if name in METHODS else one for name, one in _without_servers(item).items()}
        for path, item in _map(document.get("paths")).items()
        if isinstance(item, Mapping)
    }
    return copied


def _without_servers(value: Any) -> Any:
    return {name: one for name, one in value.items() if name != "servers"} if isinstance(value, Mapping) else value


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any, most: int = MOST_TEXT) -> str:
    """Return a text without what can't be seen, cut; anything but a text or a number is an empty one."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        value = str(value)
    if not isinstance(value, str):
        return ""
    text = _CONTROLS.sub("", value[: 2 * most]).strip()
    return text if len(text) <= most else text[: most - 1] + "…"


def _json(value: Any) -> str:
    """Return a value as JSON, cut; an absent one is empty."""
    if value is None:
        return ""
    pretty = isinstance(value, Mapping | list)
    return _text(json.dumps(_trimmed(value, [_MOST_NODES]), ensure_ascii=False, indent=2 if pretty else None))


def _trimmed(value: Any, left: list[int], depth: int = 0) -> Any:
    """Return as much of a value as a page shows; ``left`` counts the nodes down over all of it."""
    left[0] -= 1
    if left[0] < 0 or depth > MOST_DEPTH:
        return "…"
    match value:
        case Mapping():
            some = islice(value.items(), MOST_MEMBERS)
            return {_text(name, MOST_NAME): _trimmed(one, left, depth + 1) for name, one in some if left[0] > 0}
        case list():
            return [_trimmed(one, left, depth + 1) for one in islice(value, MOST_MEMBERS) if left[0] > 0]
        case bool() | None:
            return value
        case int() | float() if abs(value) < _LARGEST:
            return value
        case _:
            return _text(value)


@dataclass(slots=True)
class _Reader:
    document: Mapping[str, Any]
    parts: int = 0
    cut: bool = False
    _open: list[str] = field(default_factory=list)
    """References that are being read: one that comes again goes in a circle."""

    def read(self) -> Reference:
        info = _map(self.document.get("info"))
        operations: list[Operation] = []
        for operation in self._operations():
            if len(operations) == MOST_OPERATIONS:
                self.cut = True
                break
            operations.append(operation)
        return Reference(
            _text(info.get("title"), MOST_NAME),
            _text(info.get("version"), MOST_NAME),
            _text(info.get("description")),
            tuple(operations),
            self.cut,
        )

    def _operations(self) -> Iterator[Operation]:
        for path, item in _map(self.document.get("paths")).items():
            item = self._follow(item)
            for method in METHODS:
                if isinstance(item.get(method), Mapping):
                    yield self._operation(method, _text(path, MOST_NAME), item, item[method])

    def _operation(self, method: str, path: str, item: Mapping[str, Any], said: Mapping[str, Any]) -> Operation:
        parameters: dict[tuple[str, str], Mapping[str, Any]] = {}
        for one in self._some(_list(item.get("parameters"))) + self._some(_list(said.get("parameters"))):
            one = self._follow(one)
            parameters[_text(one.get("in"), MOST_NAME), _text(one.get("name"), MOST_NAME)] = one
        body = self._follow(said.get("requestBody"))
        contents = self._contents(body.get("content"))
        in_body = next((one for (place, _), one in parameters.items() if place == "body"), None)
        if in_body is not None:  # OpenAPI 2.0
            contents = (Content("application/json", self._schema(in_body.get("schema")), ""),)
        answers = self._some(_map(said.get("responses")).items())
        return Operation(
            method.upper(),
            path,
            _text(said.get("summary"), MOST_NAME),
            _text(said.get("description")),
            said.get("deprecated") is True,
            tuple(
                self._parameter(one, name, place)
                for (place, name), one in self._some(parameters.items())
                if name and place in ("query", "path", "header", "cookie", "formData")
            ),
            contents,
            body.get("required") is True or (in_body or {}).get("required") is True,
            tuple(self._answer(_text(status, 20), self._follow(one)) for status, one in answers),
        )

    def _some(self, things: Iterable[Any]) -> list[Any]:
        found = list(islice(things, MOST_MEMBERS + 1))
        self.cut = self.cut or len(found) > MOST_MEMBERS
        return found[:MOST_MEMBERS]

    def _parameter(self, said: Mapping[str, Any], name: str, place: str) -> Parameter:
        required = said.get("required") is True or place == "path"
        schema = said.get("schema") or next(
            (_map(one).get("schema") for one in _map(said.get("content")).values()), said
        )
        return Parameter(name, place, required, _text(said.get("description")), self._schema(schema))

    def _answer(self, status: str, said: Mapping[str, Any]) -> Answer:
        contents = self._contents(said.get("content"))
        if not contents and isinstance(said.get("schema"), Mapping):  # OpenAPI 2.0
            contents = (Content("application/json", self._schema(said["schema"]), ""),)
        return Answer(status, _text(said.get("description")), contents)

    def _contents(self, content: Any) -> tuple[Content, ...]:
        found = []
        for media_type, one in self._some(_map(content).items()):
            one = _map(one)
            example = one.get("example")
            if example is None:
                first = next(iter(_map(one.get("examples")).values()), None)
                example = self._follow(first).get("value")
            schema = self._schema(one["schema"]) if "schema" in one else None
            found.append(Content(_text(media_type, MOST_NAME), schema, _json(example)))
        return tuple(found)

    # --- references -------------------------------------------------------------------------------

    def _follow(self, value: Any) -> Mapping[str, Any]:
        """Return what a value is or refers to, nothing for what leads out of the document or nowhere."""
        for _ in range(_HOPS):
            if not isinstance(value, Mapping) or not isinstance(value.get("$ref"), str):
                return _map(value)
            value = self._target(value["$ref"])
        return {}

    def _target(self, reference: str) -> Any:
        """Return what a reference of this document points at (RFC 6901), None for anything else."""
        if not reference.startswith("#/") or len(reference) > MOST_TEXT:
            return None
        place: Any = self.document
        for part in unquote(reference[2:]).split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(place, Mapping):
                place = place.get(part)
            elif isinstance(place, list) and part.isascii() and part.isdigit() and len(part) < 6:
                place = place[int(part)] if int(part) < len(place) else None
            else:
                return None
        return place

    # --- schemas ----------------------------------------------------------------------------------

    def _schema(self, said: Any, name: str = "", required: bool = False, depth: int = 0) -> Schema:
        self.parts += 1
        if self.parts > MOST_PARTS or depth > MOST_DEPTH:
            self.cut = True
            return Schema(name, required=required, note="cut")
        if not isinstance(said, Mapping):  # `true` and `false` are schemas, too
            return Schema(name, "any" if said is True else "", required)
        reference = said.get("$ref")
        if not isinstance(reference, str):
            return self._described(said, name, required, depth)
        called = _text(reference.rsplit("/", 1)[-1], MOST_NAME)
        if not reference.startswith("#/"):
            return Schema(name, called, required, note="elsewhere")
        if reference in self._open:
            return Schema(name, called, required, note="again")
        target = self._target(reference)
        if target is None:
            return Schema(name, called, required, note="nowhere")
        self._open.append(reference)
        try:
            return self._schema(target, name, required, depth + 1)
        finally:
            self._open.pop()

    def _described(self, said: Mapping[str, Any], name: str, required: bool, depth: int) -> Schema:
        wanted = {one for one in islice(_list(said.get("required")), 10 * MOST_MEMBERS) if isinstance(one, str)}
        members = [
            self._schema(one, _text(key, MOST_NAME), key in wanted, depth + 1)
            for key, one in self._some(_map(said.get("properties")).items())
        ]
        if "items" in said:
            members.append(self._schema(said["items"], "[ ]", False, depth + 1))
        if isinstance(said.get("additionalProperties"), Mapping):
            members.append(self._schema(said["additionalProperties"], "*", False, depth + 1))
        choice = next((one for one in _CHOICES if _list(said.get(one))), "")
        choices = [self._schema(one, "", False, depth + 1) for one in self._some(_list(said.get(choice)))]
        example = said.get("example")
        if example is None:
            example = next(iter(_list(said.get("examples"))), None)
        values = [said["const"]] if "const" in said else self._some(_list(said.get("enum")))
        return Schema(
            name,
            _kind(said),
            required,
            _text(said.get("description")),
            tuple((bound, _text(said[bound], MOST_NAME)) for bound in _BOUNDS if _text(said.get(bound), MOST_NAME)),
            tuple(_json(one)[:MOST_NAME] if one is not None else "null" for one in values),
            _json(said.get("default")),
            _json(example),
            said.get("deprecated") is True,
            tuple(members),
            choice,
            tuple(choices),
        )


def _kind(said: Mapping[str, Any]) -> str:
    """Return a schema's type with its format: ``string (date-time)``; what has none is told by what it has."""
    types = [_text(one, 40) for one in (_list(said.get("type"))[:8] or [said.get("type")])]
    found = " | ".join(filter(None, types))
    if not found:
        found = "object" if "properties" in said else "array" if "items" in said else ""
    if said.get("nullable") is True and found:
        found += " | null"
    form = _text(said.get("format"), 40)
    return f"{found} ({form})" if found and form else found or form
