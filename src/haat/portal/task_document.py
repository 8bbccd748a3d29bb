"""The OpenAPI document of a version that is called in the task schema: made from its sample and its languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haat.catalog.drafts import SampleCall
from haat.catalog.model import TASK_DIALECTS, Listing, Version

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What to do."},
        "code": {"type": "string", "description": "The reason, which never changes its meaning."},
        "request_id": {"type": "string", "format": "uuid"},
    },
}
_LONGEST_EXAMPLE = 300


def task_document(listing: Listing, version: Version) -> dict[str, Any] | None:
    """Return the document of a task version, None for one that speaks something else.

    Members of an input and of ``config`` are those of the sample: it is what the version was accepted by.
    """
    sample = SampleCall.model_validate(version.sample)
    if version.dialect not in TASK_DIALECTS or not isinstance(sample.body, dict):
        return None
    inputs = sample.body.get("input")
    first = inputs[0] if isinstance(inputs, list) and inputs else {}
    config = sample.body.get("config")
    members: dict[str, dict[str, Any]] = {
        "input": {
            "type": "array",
            "minItems": 1,
            "description": "What is to be done; each item is answered by one of `output`, in the same order.",
            "items": _shape(first),
        }
    }
    if isinstance(config, dict) and config:
        members["config"] = _shape(config) | {"description": "How it is to be done, for all items."}
        _name_languages(members["config"]["properties"], version)
    request = {"type": "object", "required": ["input"], "properties": members}
    return {
        "openapi": "3.1.0",
        "info": {"title": listing.name, "version": version.version, "description": listing.summary},
        "paths": {
            sample.path: {
                sample.method.lower(): {
                    "summary": listing.summary or listing.name,
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": request, "example": _short(sample.body)}},
                    },
                    "responses": {
                        "200": {
                            "description": "An answer for each item.",
                            "content": {
                                "application/json": {
                                    "schema": {
                                        "type": "object",
                                        "required": ["output"],
                                        "properties": {"output": {"type": "array", "items": {"type": "object"}}},
                                    }
                                }
                            },
                        },
                        "4XX": _refusal("The call was refused, and is not billed."),
                        "5XX": _refusal("It failed, and is not billed."),
                    },
                }
            }
        },
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _refusal(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


def _name_languages(members: dict[str, Any], version: Version) -> None:
    """Say which languages a version takes, where its sample names one."""
    pairs = [pair.split(">") for pair in version.language_pairs]
    taken = {
        "source": sorted({source for source, _ in pairs}) or list(version.languages),
        "target": sorted({target for _, target in pairs}),
        "language": list(version.languages),
    }
    for name, tags in taken.items():
        if tags and isinstance(members.get(name), dict):
            members[name]["enum"] = tags


def _shape(value: Any) -> dict[str, Any]:
    """Return the schema of a value that is known from one example."""
    match value:
        case Mapping():
            members = {str(name): _shape(one) for name, one in value.items()}
            return {"type": "object", "properties": members, "required": list(members)}
        case list():
            return {"type": "array", "items": _shape(value[0]) if value else {}}
        case bool():
            return {"type": "boolean", "example": value}
        case int():
            return {"type": "integer", "example": value}
        case float():
            return {"type": "number", "example": value}
        case str():
            return {"type": "string", "example": _short(value)}
        case _:
            return {}


def _short(value: Any) -> Any:
    """Cut encoded sounds and pictures: a document is for reading."""
    match value:
        case Mapping():
            return {name: _short(one) for name, one in value.items()}
        case list():
            return [_short(one) for one in value]
        case str() if len(value) > _LONGEST_EXAMPLE:
            return value[:24] + "…"
        case _:
            return value
