"""Σ of everything is the same on both sides, whatever came twice, late or in disorder, and whoever died over it."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

from bazaar import Bazaar
from haat.app import build_platform
from haat.infra.keyring import Keyring
from haat.kernel.clock import SetClock
from haat.settings import Settings

from .hands import NoMail, Raising
from .market import OPENS
from .season import Season

SEED = int(os.environ.get("SEED") or 20_270_401)


async def test_every_paisa_traces_to_a_call_whoever_dies_over_it(
    database: Any, tmp_path: Path, keyring: Keyring
) -> None:
    chance, clock = random.Random(SEED), SetClock(OPENS)
    platform = build_platform(Settings(data_dir=tmp_path), database.app, database.service, keyring, clock, NoMail())
    hands = Raising(platform, clock)
    bazaar = Bazaar(database.service, clock, chance)
    season = Season(bazaar, database.owner_dsn, hands, tmp_path, chance, calls=30, customers=4)
    try:
        found = {one.name: one for one in await season.run()}
    except BaseException as failure:
        failure.add_note(f"SEED={SEED} repeats it; {season.tally}")
        raise
    assert all(one.holds and one.checked for one in found.values())
    assert found["Σ charges = Σ net of invoice lines and adjustments"].left > 0
    assert found["Σ minimums = Σ lines of minimums"].left > 0
    dead = Counter(deed for deed, _ in hands.crashes.elements())
    assert {"ship", "bill_part", "close", "judge", "settle", "correct", "credit", "debit", "void", "pay_out"} <= set(
        dead
    )
    assert all(one.startswith("void: ") for one in season.tally.refused), season.tally.refused
