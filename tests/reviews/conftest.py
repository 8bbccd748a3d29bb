"""The control process and the calls these tests speak of."""

from __future__ import annotations

import pytest

from bazaar import Bazaar
from office import Control, control

__all__ = ["bazaar", "control"]


@pytest.fixture
def bazaar(control: Control) -> Bazaar:
    return Bazaar(control.platform.service_db, control.market.clock)
