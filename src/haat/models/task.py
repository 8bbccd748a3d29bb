"""The task schema: what a call to a hosted service looks like, checked before any engine sees it.

``{"input": [{"text": …} | {"text": …, "other": …} | {"audio": {"content": base64, "format": …}} |
{"image": {…}}], "config": {…}}``. `docs/tasks.md` is its description for callers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from haat.kernel.errors import InputTooLong, MalformedJson, UnsupportedLanguage, ValidationFailed
from haat.kernel.text import is_storable
from haat.language import parse_tag
from haat.models.hosted import InputKind, Item, Option
from haat.models.runtimes.port import Input

Problem = dict[str, str]


class TaskService(Protocol):
    """What of a service its calls are checked by: a hosted service's description has it, and a model's manifest."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> InputKind: ...
    @property
    def languages(self) -> tuple[str, ...]: ...
    @property
    def language_pairs(self) -> tuple[str, ...]: ...
    @property
    def takes_language(self) -> bool: ...
    @property
    def options(self) -> tuple[Option, ...]: ...
    @property
    def formats(self) -> tuple[str, ...]: ...
    @property
    def max_inputs(self) -> int: ...
    @property
    def max_characters(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...


def max_body_bytes(service: TaskService) -> int:
    """Most bytes a well-formed call can have: text may be written as JSON escapes, content as base64."""
    one = service.max_bytes * 4 // 3 + 4 if service.max_bytes else service.max_characters * 12
    texts = 2 if service.kind == "text_pair" else 1
    return service.max_inputs * (texts * one + 128) + 64 * 1024


def parse_inputs(service: TaskService, body: bytes) -> list[Input]:
    """Return the inputs of a request body as models take them; raises what `parse_call` does."""
    items, config = parse_call(service, body)
    return [Input(item.text, item.other, item.content, item.format, config) for item in items]


def parse_call(service: TaskService, body: bytes) -> tuple[list[Item], dict[str, Any]]:
    """Return the items and the complete config of a request body.

    Raises MalformedJson; ValidationFailed with every wrong field in ``errors``; UnsupportedLanguage
    with ``supported``; InputTooLong with ``limit``, ``unit`` and the index ``input``.
    """
    try:
        call = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedJson from None
    if not isinstance(call, dict):
        raise ValidationFailed(errors=[_problem("", "must be an object with `input` and `config`")])
    errors = [_problem(name, "is not a field of a task") for name in call if name not in ("input", "config")]
    config, language_errors = _config(service, call.get("config", {}), errors)
    items = _items(service, call.get("input"), errors)
    if errors:
        raise ValidationFailed(errors=errors)
    if language_errors:
        raise language_errors[0]
    _check_lengths(service, items)
    return items, config


def _problem(field: str, message: str) -> Problem:
    return {"field": field[:200], "message": message}


# --- config -----------------------------------------------------------------------------------


def _config(
    service: TaskService, given: Any, errors: list[Problem]
) -> tuple[dict[str, Any], list[UnsupportedLanguage]]:
    if not isinstance(given, dict):
        errors.append(_problem("config", "must be an object"))
        return {}, []
    config: dict[str, Any] = {}
    unsupported: list[UnsupportedLanguage] = []
    names = _language_names(service)
    for name in names:
        language = given.get(name, _only(service.languages) if name == "language" else None)
        if not isinstance(language, str):
            errors.append(_problem(f"config.{name}", "must be a language tag such as `hi-Deva`"))
        else:
            config[name] = _canonical(language)
    if names and len(config) == len(names):
        try:
            _check_languages(service, config)
        except UnsupportedLanguage as error:
            unsupported.append(error)
    known = {option.name: option for option in service.options}
    for name in given:
        if name not in names and name not in known:
            takes = ", ".join([*names, *known]) or "no options"
            errors.append(_problem(f"config.{name}", f"is not an option of this service; it takes {takes}"))
    for name, option in known.items():
        value = given.get(name, option.default)
        message = _option_error(option, value) if name in given else None
        if message:
            errors.append(_problem(f"config.{name}", message))
        config[name] = value
    return config, unsupported


def _language_names(service: TaskService) -> tuple[str, ...]:
    if service.language_pairs:
        return ("source", "target")
    return ("language",) if service.languages and service.takes_language else ()


def _only(languages: tuple[str, ...]) -> str | None:
    return languages[0] if len(languages) == 1 else None


def _canonical(language: str) -> str:
    try:
        return str(parse_tag(language))
    except ValueError:
        return language[:64]  # a plugin may offer languages beyond our table, by their exact tags


def _check_languages(service: TaskService, config: Mapping[str, str]) -> None:
    if service.language_pairs:
        pair = f"{config['source']}>{config['target']}"
        if pair not in service.language_pairs:
            raise UnsupportedLanguage(
                f"{service.name} does not go from {config['source']} to {config['target']}; use one of the pairs in "
                "`supported`.",
                supported=list(service.language_pairs),
            )
    elif config["language"] not in service.languages:
        raise UnsupportedLanguage(
            f"{service.name} does not cover {config['language']}; use one of the languages in `supported`.",
            supported=list(service.languages),
        )


def _option_error(option: Option, value: Any) -> str | None:
    match option.kind:
        case "choice":
            if value not in option.choices:
                return f"must be one of {', '.join(option.choices)}"
        case "integer" | "number":
            wanted = (int,) if option.kind == "integer" else (int, float)
            if isinstance(value, bool) or not isinstance(value, wanted) or not option.least <= value <= option.most:
                return f"must be {_article(option.kind)} from {option.least} to {option.most}"
        case "text":
            if not _is_text(value) or not option.least <= len(value) <= option.most:
                return f"must be a text of {option.least} to {option.most} characters"
        case "texts":
            if not isinstance(value, list) or not option.least <= len(value) <= option.most:
                return f"must be a list of {option.least} to {option.most} texts"
            if not all(_is_text(text) and 0 < len(text) <= _LIST_TEXT for text in value):
                return f"must hold texts of 1 to {_LIST_TEXT} characters"
    return None


_LIST_TEXT = 200


def _article(kind: str) -> str:
    return "a whole number" if kind == "integer" else "a number"


# --- input ------------------------------------------------------------------------------------


def _items(service: TaskService, given: Any, errors: list[Problem]) -> list[Item]:
    if not isinstance(given, list) or not given:
        errors.append(_problem("input", "must be a list with at least one item"))
        return []
    if len(given) > service.max_inputs:
        errors.append(_problem("input", f"has {len(given)} items; this service takes {service.max_inputs} a call"))
        return []
    read = {"text": _text_item, "text_pair": _pair_item}.get(service.kind, _content_item)
    items = [read(service, value, f"input[{index}]", errors) for index, value in enumerate(given)]
    return [item for item in items if item is not None]


def _text_item(service: TaskService, given: Any, at: str, errors: list[Problem]) -> Item | None:
    if not _is_object(given, {"text"}, at, errors):
        return None
    return Item(text=given["text"]) if _text_given(given, "text", at, errors) else None


def _pair_item(service: TaskService, given: Any, at: str, errors: list[Problem]) -> Item | None:
    if not _is_object(given, {"text", "other"}, at, errors):
        return None
    both = [_text_given(given, name, at, errors) for name in ("text", "other")]
    return Item(text=given["text"], other=given["other"]) if all(both) else None


def _content_item(service: TaskService, given: Any, at: str, errors: list[Problem]) -> Item | None:
    if not _is_object(given, {service.kind}, at, errors):
        return None
    at, given = f"{at}.{service.kind}", given.get(service.kind)
    if not _is_object(given, {"content", "format"}, at, errors):
        return None
    form = given.get("format", service.formats[0])
    if form not in service.formats:
        errors.append(_problem(f"{at}.format", f"must be one of {', '.join(service.formats)}"))
        return None
    try:
        content = base64.b64decode(given["content"].encode("ascii"), validate=True)
    except (KeyError, AttributeError, UnicodeEncodeError, binascii.Error):
        errors.append(_problem(f"{at}.content", "must be base64"))
        return None
    if not content:
        errors.append(_problem(f"{at}.content", "must not be empty"))
        return None
    return Item(content=content, format=form)


def _is_object(given: Any, fields: set[str], at: str, errors: list[Problem]) -> bool:
    if isinstance(given, dict) and given.keys() <= fields:
        return True
    wanted = " and ".join(f"`{field}`" for field in sorted(fields, reverse=True))
    if not isinstance(given, dict):
        errors.append(_problem(at, f"must be an object with {wanted}"))
        return False
    unknown = [name for name in given if name not in fields]
    errors.extend(_problem(f"{at}.{name}", f"is not a field here; give {wanted}") for name in unknown)
    return False


def _text_given(given: dict[str, Any], name: str, at: str, errors: list[Problem]) -> bool:
    value = given.get(name)
    if isinstance(value, str) and is_storable(value) and value.strip():
        return True
    errors.append(_problem(f"{at}.{name}", "must be a text that is not empty"))
    return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_storable(value)


def _check_lengths(service: TaskService, items: list[Item]) -> None:
    for index, item in enumerate(items):
        longest = max(len(item.text), len(item.other))
        if longest > service.max_characters:
            raise InputTooLong(
                f"Input {index} has {longest} characters; split it into parts of at most {service.max_characters}.",
                limit=service.max_characters,
                unit="characters",
                input=index,
            )
        if len(item.content) > service.max_bytes and item.content:
            raise InputTooLong(
                f"Input {index} has {len(item.content)} bytes; send at most {service.max_bytes}.",
                limit=service.max_bytes,
                unit="bytes",
                input=index,
            )
