"""A counting house, and the control API over it, for every test that asks for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frontage import app_on
from haat.app import build_platform
from haat.infra.keyring import Keyring
from haat.infra.mail import mail_for
from haat.kernel.clock import SetClock
from haat.settings import Settings

from .counting_house import House


@pytest.fixture
def house(database: Any, clock: SetClock) -> House:
    return House(database, clock)


@pytest.fixture
def app(database: Any, clock: SetClock, keyring: Keyring, tmp_path: Path) -> Any:
    settings = Settings(
        data_dir=tmp_path,
        payout_minimum="0",
        payout_delay_days=0,
        withholdings=[{"name": "TDS", "section": "194-O", "rate": "0.001", "starts": "2024-10-01"}],
    )
    return app_on(build_platform(settings, database.app, database.service, keyring, clock, mail_for(settings)))
