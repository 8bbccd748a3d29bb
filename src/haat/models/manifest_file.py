"""Reads `haat-model.yaml`: what is wrong is told with its field and line.

Whatever is declared as text stays the text that was written: a version 1.10 is no number, ``no`` is Norwegian. Only
``settings`` and ``sample`` have YAML's own types.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from haat.kernel.errors import ValidationFailed
from haat.kernel.text import is_storable
from haat.models.manifest import Manifest
from haat.models.manifest_check import problems

FILE = "haat-model.yaml"
MOST_BYTES = 256 * 1024
_MOST_DEPTH = 32
_FREE = ("settings", "sample")
_PATH = re.compile(r"^(?P<message>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in a model's folder.

    Raise ValidationFailed with ``field``, ``message`` and where it can be told ``line`` in ``errors``.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _refusal([("", f"{FILE} is larger than {MOST_BYTES:,} bytes", 0)])
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _refusal([("", f"there is no {FILE} in {folder.name or 'the folder'}", 0)]) from error
    except UnicodeDecodeError as error:
        raise _refusal([("", f"{FILE} is not UTF-8", 0)]) from error
    return parse_manifest(text, folder)


def parse_manifest(text: str, folder: Path) -> Manifest:
    """Return the manifest that a text is, checked against the files in ``folder``; raise ValidationFailed."""
    root = _compose(text)
    lines: dict[str, int] = {}
    document = _plain(root, "", lines, 0)
    if not is_storable(document):
        raise _refusal([("", "holds characters or numbers that can't be stored", 0)])
    try:
        manifest = msgspec.convert(document, Manifest, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal([_of_msgspec(error, lines)]) from error
    wrong = [problem.partition(": ")[::2] for problem in problems(manifest, folder)]
    if wrong:
        raise _refusal([(field, message, _line(lines, field)) for field, message in wrong])
    return manifest


def _compose(text: str) -> MappingNode:
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                assert event.start_mark is not None
                raise _refusal([("", "must not have aliases (*name)", event.start_mark.line + 1)])
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise _refusal([("", f"is not YAML: {error.problem}", line)]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise _refusal([("", "is not YAML", 0)]) from error
    if not isinstance(root, MappingNode):
        raise _refusal([("", "must be a mapping of fields", 1)])
    return root


def _plain(node: Node, path: str, lines: dict[str, int], depth: int) -> Any:
    """Return what a node says, and note each field's line."""
    lines.setdefault(path, node.start_mark.line + 1)
    if depth > _MOST_DEPTH:
        raise _refusal([(path, "is nested too deeply", lines[path])])
    if isinstance(node, MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise _refusal([(path, "has a key that is no text", line)])
            name = str(key.value)
            inner = f"{path}.{name}".removeprefix(".")
            if name in found:
                raise _refusal([(inner, "is given twice", line)])
            lines[inner] = line
            found[name] = _plain(value, inner, lines, depth + 1)
        return found
    if isinstance(node, SequenceNode):
        return [_plain(one, f"{path}[{index}]", lines, depth + 1) for index, one in enumerate(node.value)]
    return _scalar(node, path, lines)


def _scalar(node: Node, path: str, lines: dict[str, int]) -> Any:
    is_free = re.split(r"[.\[]", path, maxsplit=1)[0] in _FREE
    if not is_free:
        return str(node.value)
    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        raise _refusal([(path, "is a value that is not understood", lines[path])]) from error
    finally:
        loader.dispose()
    if not isinstance(value, str | int | float | bool | None):
        raise _refusal([(path, "must be a text, a number, true, false or null: put quotes around it", lines[path])])
    return value


def _of_msgspec(error: msgspec.ValidationError, lines: dict[str, int]) -> tuple[str, str, int]:
    match = _PATH.match(str(error))
    message, path = (match["message"], (match["path"] or "").removeprefix(".")) if match else (str(error), "")
    if unknown := re.search(r"unknown field `(.*?)`", message):
        path, message = f"{path}.{unknown[1]}".removeprefix("."), "is not a field here"
    elif missing := re.search(r"missing required field `(.*?)`", message):
        path, message = f"{path}.{missing[1]}".removeprefix("."), "is missing"
    path = re.sub(r"\[\.\.\.\]", "", path)
    return path, message[:1].lower() + message[1:], _line(lines, path)


def _line(lines: dict[str, int], field: str) -> int:
    """Return the line of a field, or of what it should stand in."""
    while field and field not in lines:
        field = re.sub(r"(\.[^.\[]*|\[\d+\])$|^[^.\[]*$", "", field)
    return lines.get(field, 0)


def _refusal(wrong: list[tuple[str, str, int]]) -> ValidationFailed:
    errors = [
        {"field": field, "message": message, **({"line": line} if line else {})} for field, message, line in wrong
    ]
    field, message, line = wrong[0]
    where = f"{FILE}, line {line}" if line else FILE
    return ValidationFailed(f"{where}: {f'`{field}` ' if field else ''}{message}.", errors=errors)
