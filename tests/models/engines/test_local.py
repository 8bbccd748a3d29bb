"""The local engine does what every engine does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from haat.models.engines.local import LocalEngine
from models.engines.contract import EngineContract


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine()
    await engine.start()
    yield engine
    await engine.stop()


class TestLocalEngine(EngineContract):
    pass
