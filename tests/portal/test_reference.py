"""A provider's OpenAPI document on a page: read as it is meant, and harmless whatever it holds."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.portal.reference import (
    MOST_DEPTH,
    MOST_MEMBERS,
    MOST_OPERATIONS,
    MOST_PARTS,
    MOST_TEXT,
    Reference,
    Schema,
    at_gateway,
    read_reference,
)

PETS: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Words", "version": "2.1", "description": "Counts words."},
    "servers": [{"url": "https://10.0.0.7/secret"}],
    "paths": {
        "/texts/{id}": {
            "parameters": [{"name": "id", "in": "path", "schema": {"type": "string", "format": "uuid"}}],
            "get": {
                "summary": "Read a text",
                "deprecated": True,
                "servers": [{"url": "https://10.0.0.8"}],
                "parameters": [{"$ref": "#/components/parameters/Deep"}],
                "responses": {"200": {"$ref": "#/components/responses/Text"}, "default": {"description": "No."}},
            },
            "put": {
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Text"},
                            "examples": {"one": {"value": {"words": ["हाट"]}}},
                        }
                    },
                },
                "responses": {"204": {"description": "Kept."}},
            },
        }
    },
    "components": {
        "parameters": {"Deep": {"name": "deep", "in": "query", "schema": {"type": "boolean", "default": False}}},
        "responses": {
            "Text": {
                "description": "The text.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Text"}}},
            }
        },
        "schemas": {
            "Text": {
                "type": "object",
                "required": ["words"],
                "properties": {
                    "words": {"type": "array", "minItems": 1, "items": {"type": "string", "example": "हाट"}},
                    "script": {"enum": ["Deva", "Taml", None]},
                    "parent": {"$ref": "#/components/schemas/Text"},
                    "kind": {"oneOf": [{"type": "string"}, {"type": ["integer", "null"]}]},
                },
            }
        },
    },
}


def body_of(reference: Reference) -> Schema:
    schema = reference.operations[0].body[0].schema
    assert schema is not None
    return schema


def document(schema: Any, **more: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {"paths": {"/x": {"post": {"requestBody": {"content": content}, "responses": {}}}}, **more}


def test_operations_parameters_schemas_and_answers_are_read() -> None:
    reference = read_reference(PETS)
    assert (reference.title, reference.version, reference.cut) == ("Words", "2.1", False)
    read, write = reference.operations
    assert (read.method, read.path, read.summary, read.deprecated) == ("GET", "/texts/{id}", "Read a text", True)
    assert [(one.name, one.place, one.required, one.schema.kind) for one in read.parameters] == [
        ("id", "path", True, "string (uuid)"),
        ("deep", "query", False, "boolean"),
    ]
    assert read.parameters[1].schema.default == "false"
    assert [(one.status, one.description) for one in read.answers] == [("200", "The text."), ("default", "No.")]
    [content] = write.body
    assert write.body_required and json.loads(content.example) == {"words": ["हाट"]}
    assert content.schema is not None
    words, script, parent, kind = content.schema.members
    assert (words.name, words.kind, words.required, words.bounds) == ("words", "array", True, (("minItems", "1"),))
    assert (words.members[0].kind, words.members[0].example) == ("string", '"हाट"')
    assert script.values == ('"Deva"', '"Taml"', "null")
    assert (parent.kind, parent.note, parent.members) == ("Text", "again", ()), "it holds itself"
    assert (kind.choice, [one.kind for one in kind.choices]) == ("oneOf", ["string", "integer | null"])


def test_of_openapi_2_bodies_and_answers_are_read() -> None:
    reference = read_reference({
        "swagger": "2.0",
        "paths": {"/x": {"post": {
            "parameters": [{"in": "body", "name": "body", "required": True, "schema": {"$ref": "#/definitions/A"}}],
            "responses": {"200": {"description": "Done", "schema": {"type": "string"}}},
        }}},
        "definitions": {"A": {"type": "integer"}},
    })  # fmt: skip
    assert body_of(reference).kind == "integer" and reference.operations[0].body_required
    assert reference.operations[0].answers[0].contents[0].schema == Schema(kind="string")


@pytest.mark.parametrize(
    ("reference", "note"),
    [
        ("https://evil.example/schema.json", "elsewhere"),
        ("other.yaml#/Text", "elsewhere"),
        ("file:///etc/passwd", "elsewhere"),
        ("#/components/schemas/Nobody", "nowhere"),
        ("#/paths/999999999999999", "nowhere"),
        ("#", "elsewhere"),
    ],
)
def test_references_out_of_the_document_and_to_nothing_are_named_and_not_followed(reference: str, note: str) -> None:
    assert body_of(read_reference(document({"$ref": reference}))).note == note


def test_circles_of_references_end() -> None:
    schemas = {
        "A": {"$ref": "#/components/schemas/B"},
        "B": {"$ref": "#/components/schemas/A"},
        "C": {
            "properties": {
                "one": {"$ref": "#/components/schemas/C"},
                "two": {"items": {"$ref": "#/components/schemas/C"}},
            }
        },
    }
    found = read_reference(document({"$ref": "#/components/schemas/A"}, components={"schemas": schemas}))
    assert body_of(found).note == "again"
    found = read_reference(document({"$ref": "#/components/schemas/C"}, components={"schemas": schemas}))
    one, two = body_of(found).members
    assert one.note == "again" and two.members[0].note == "again"
    item: dict[str, Any] = {"paths": {"/x": {"$ref": "#/paths/~1y"}, "/y": {"$ref": "#/paths/~1x"}}}
    assert read_reference(item).operations == ()


def test_what_is_too_deep_or_too_much_is_cut_and_says_so() -> None:
    deep: dict[str, Any] = {}
    for _ in range(60):
        deep = {"properties": {"x": deep}}
    reference = read_reference(document(deep))
    schema, depth = body_of(reference), 0
    while schema.members:
        schema, depth = schema.members[0], depth + 1
    assert (depth, schema.note, reference.cut) == (MOST_DEPTH + 1, "cut", True)
    wide = read_reference(document({"properties": {f"p{n}": {} for n in range(500)}}))
    assert len(body_of(wide).members) == MOST_MEMBERS and wide.cut
    many = read_reference({"paths": {f"/{n}": {"get": {}} for n in range(500)}})
    assert len(many.operations) == MOST_OPERATIONS and many.cut
    assert len(body_of(read_reference(document({"description": "x" * 10**6}))).description) == MOST_TEXT


def test_references_that_multiply_end_soon() -> None:
    """Ten levels of ten references each are ten thousand million schemas, each with a large example."""
    schemas = {
        f"L{n}": {
            "example": ["x" * 1000] * 1000,
            "required": ["x"] * 1000,
            "properties": {f"p{k}": {"$ref": f"#/components/schemas/L{n + 1}"} for k in range(10)},
        }
        for n in range(10)
    }
    begun = time.process_time()
    reference = read_reference(document({"$ref": "#/components/schemas/L0"}, components={"schemas": schemas}))
    assert reference.cut
    assert time.process_time() - begun < 20

    def count(schema: Schema) -> int:
        return 1 + sum(count(one) for one in (*schema.members, *schema.choices))

    assert count(body_of(reference)) <= MOST_PARTS * 11


def test_marks_that_turn_text_around_are_left_out() -> None:
    assert body_of(read_reference(document({"description": "a\u202eb\x00c\x1b[31m\nd"}))).description == "abc[31m\nd"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "paths",
                    "get",
                    "post",
                    "parameters",
                    "requestBody",
                    "content",
                    "schema",
                    "properties",
                    "items",
                    "enum",
                    "$ref",
                    "type",
                    "required",
                    "responses",
                    "200",
                    "oneOf",
                    "allOf",
                    "example",
                    "examples",
                    "in",
                    "name",
                    "info",
                    "const",
                    "application/json",
                    "additionalProperties",
                    "default",
                    "components",
                    "/x",
                    "description",
                    "minimum",
                ]
            ),
            inner | st.sampled_from(["#/", "#/components", "#/paths/~1x", "path", "query", "body", "string"]),
            max_size=6,
        )
    ),
    max_leaves=60,
)


@given(_JSON)
def test_no_document_makes_it_stumble(value: Any) -> None:
    read_reference(value)
    read_reference({"paths": {"/x": {"post": value, "parameters": value}}, "components": value})
    read_reference(document(value, components=value))
    if isinstance(value, dict):
        at_gateway(value, "http://gateway")


def test_a_downloaded_document_calls_the_gateway_and_names_no_server_of_the_provider() -> None:
    given = at_gateway(PETS, "http://127.0.0.1:8080/v1/services/vani/words")
    assert given["servers"] == [{"url": "http://127.0.0.1:8080/v1/services/vani/words"}]
    assert "10.0.0" not in json.dumps(given)
    assert given["paths"]["/texts/{id}"]["put"] == PETS["paths"]["/texts/{id}"]["put"]
    assert "servers" in PETS, "the stored document stays as it is"
