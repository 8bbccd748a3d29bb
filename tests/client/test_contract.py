"""The client against the market's own description: every method performs an operation that exists, with its parameters.

The description is the control plane's OpenAPI document and the gateway's table of doors.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from msgspec import structs

import haat_client
from haat.app import Platform
from haat.control.api import build_app
from haat.gateway.doors.feedback import Feedback
from haat.gateway.doors.native import Pipelines
from haat.gateway.doors.table import Doors
from haat.gateway.doors.translate import Translate
from haat.jobs.front import Submission
from haat_client import aio, blocking
from haat_client.operations import Operation

OF_A_CALL = {"user", "tags", "idempotency_key", "simulate", "headers", "timeout", "retries"}
"""Arguments that become headers, or are about the sending."""
OF_ANY_API = {"method", "query", "json", "content", "service", "path"}
PARTS = ("services", "pipelines", "models", "jobs", "catalog", "usage")


def methods(module: Any, name: str) -> Iterator[tuple[str, Any]]:
    client = getattr(module, name)
    yield "translate", client.translate
    yield "feedback", client.feedback
    for part in PARTS:
        for method, function in inspect.getmembers(getattr(module, part.title()), inspect.isfunction):
            if not method.startswith("_"):
                yield f"{part}.{method}", function


METHODS = dict(methods(blocking, "Haat"))


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    """The document, which says nothing of the platform behind it: none is opened for it."""
    return build_app(cast(Platform, None)).openapi()


def operation_of(name: str) -> Operation:
    found = METHODS[name].operation
    assert isinstance(found, Operation)
    return found


def of_side(side: str) -> list[str]:
    return [name for name in METHODS if operation_of(name).side == side]


@pytest.mark.parametrize("name", of_side("control"))
def test_an_operation_of_the_control_api_is_in_its_document_with_the_same_parameters(
    name: str, openapi: dict[str, Any]
) -> None:
    operation = operation_of(name)
    path = openapi["paths"].get(f"/api/v1{operation.path}")
    assert path is not None, f"{operation.path} is not in the document"
    described = path[operation.method.lower()]
    said: dict[str, set[str]] = {"query": set(), "path": set(), "header": set(), "cookie": set()}
    for parameter in described.get("parameters", []):
        said[parameter["in"]].add(parameter["name"])
    assert said["query"] == set(operation.query)
    assert said["path"] == set(re.findall(r"{(\w+)}", operation.path))
    assert "requestBody" not in described


@pytest.mark.parametrize("name", of_side("gateway"))
def test_an_operation_of_the_gateway_has_a_door_or_is_a_call_of_a_service(name: str) -> None:
    operation = operation_of(name)
    if operation.path.startswith("/v1/services/{service}"):
        return  # every path below a service is called as its provider has it
    target = operation.path.replace("{name}", "acme/echo").encode()
    assert Doors().find(operation.method.encode(), target) is not None, operation.path


@pytest.mark.parametrize(
    ("name", "door", "besides"),
    [
        ("translate", Translate, set()),
        ("feedback", Feedback, {"items"}),
        ("pipelines.run", Pipelines, {"stream", "split"}),
        ("pipelines.stream", Pipelines, {"stream"}),
    ],
)
def test_the_members_of_a_body_are_those_that_the_door_reads(name: str, door: Any, besides: set[str]) -> None:
    """A stream is asked for in ``Accept``."""
    assert {field.name for field in structs.fields(door._decoder.type)} - besides == set(operation_of(name).body)


def test_a_job_is_handed_in_with_the_members_that_the_market_reads() -> None:
    """One ``input`` is a list of one."""
    assert set(Submission.model_fields) - {"input"} == set(operation_of("jobs.submit").body)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_what_its_operation_takes_and_nothing_else(name: str) -> None:
    operation = operation_of(name)
    taken = set(inspect.signature(METHODS[name]).parameters) - {"self"}
    parts = set(re.findall(r"{(\w+)}", operation.path))
    if operation.path.endswith("{path}"):
        assert taken <= OF_ANY_API | OF_A_CALL
        return
    own = {*operation.query, *operation.body, *parts}
    assert own <= taken, f"it leaves out {own - taken}"
    assert taken - own <= (OF_A_CALL if operation.side == "gateway" else set())


def test_the_two_clients_are_the_same_but_for_the_waiting() -> None:
    awaited = dict(methods(aio, "AsyncHaat"))
    assert awaited.keys() == METHODS.keys()
    for name, method in METHODS.items():
        other = awaited[name]
        assert inspect.iscoroutinefunction(other), name
        assert inspect.signature(other).parameters == inspect.signature(method).parameters, name
        assert other.operation is operation_of(name)
    made = inspect.signature(aio.AsyncHaat).parameters, inspect.signature(blocking.Haat).parameters
    assert list(made[0]) == list(made[1])


def test_the_client_imports_nothing_but_httpx_and_the_standard_library() -> None:
    import ast
    import sys
    from pathlib import Path

    home = Path(haat_client.__file__).parent
    names: set[str] = set()
    for file in home.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level
                names.add((node.module or "").partition(".")[0])
    assert names - set(sys.stdlib_module_names) == {"httpx", "haat_client"}


def test_the_client_says_which_release_it_is_of() -> None:
    from importlib.metadata import version

    from haat_client import asking

    assert version("haat") == asking.VERSION


def test_what_is_exported_is_there() -> None:
    assert sorted(haat_client.__all__) == haat_client.__all__
    assert all(hasattr(haat_client, name) for name in haat_client.__all__)
