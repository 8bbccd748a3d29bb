"""The market these tests work on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from haat.infra.keyring import Keyring
from haat.kernel.clock import SetClock

from .rig import CREDIT_NOTE_LINES, Level, open_level


@pytest.fixture
def level(database: Any, clock: SetClock, keyring: Keyring) -> Level:
    return open_level(database, clock, keyring)


@pytest.fixture
def credit_notes(database: Any) -> Iterator[None]:
    """The table of credit notes, as `haat.invoices` has it, while a test writes into it."""
    with psycopg.connect(database.owner_dsn, autocommit=True) as owner:
        owner.execute(CREDIT_NOTE_LINES)
        yield
        owner.execute("DROP SCHEMA port CASCADE")
