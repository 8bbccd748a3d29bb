"""The billing desk, for all tests of invoices."""

from __future__ import annotations

from typing import Any

import pytest

from bazaar import Bazaar
from desk import Desk
from haat.invoices.payments import Payments
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.settings import Settings


@pytest.fixture
def desk(database: Any, clock: SetClock) -> Desk:
    invoices = Invoices(database.app, clock, Settings())
    return Desk(database, Bazaar(database.service, clock), invoices, clock)


@pytest.fixture
def payments(database: Any, clock: SetClock) -> Payments:
    return Payments(database.app, clock)
