"""A counting house for every test that asks for one."""

from __future__ import annotations

from typing import Any

import pytest

from haat.kernel.clock import SetClock

from .counting_house import House


@pytest.fixture
def house(database: Any, clock: SetClock) -> House:
    return House(database, clock)
