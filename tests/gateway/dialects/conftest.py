"""Models over gRPC: one server and one bridge for all tests here, each test with a gateway of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.dialects import grpc_rig
from gateway.dialects.grpc_rig import Models


@pytest.fixture(scope="session")
def bridge_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("bridge")
    with grpc_rig.bridge(home):
        yield home


@pytest.fixture(scope="session")
def shared_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    with grpc_rig.model_server(tmp_path_factory.mktemp("models")) as models:
        yield models


@pytest.fixture
def models(shared_models: Models, bridge_home: Path, tmp_path: Path) -> Models:
    """The model server, which has forgotten what it was asked, and the bridge beside this test's gateway."""
    grpc_rig.lend(bridge_home, tmp_path)
    shared_models.forget()
    return shared_models
