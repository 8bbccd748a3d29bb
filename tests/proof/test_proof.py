"""Σ of everything is the same on both sides, whatever came twice, late or in disorder, and whoever died over it."""

from __future__ import annotations

import random
from typing import Any

from bazaar import Bazaar
from haat.app import build_platform
from haat.infra.keyring import Keyring
from haat.kernel.clock import SetClock
from haat.settings import Settings

from .hands import NoMail, Raising
from .market import OPENS
from .season import Season


async def test_every_paisa_traces_to_a_call_whoever_dies_over_it(database: Any, tmp_path: Any, keyring: Keyring) -> None:
    seed = 20270401
    chance, clock = random.Random(seed), SetClock(OPENS)
    platform = build_platform(Settings(data_dir=tmp_path), database.app, database.service, keyring, clock, NoMail())
    hands = Raising(platform, clock)
    season = Season(Bazaar(database.service, clock, chance), database.owner_dsn, hands, tmp_path, chance, calls=30, customers=4)
    findings = await season.run()
    for one in findings:
        print(one.name, one.checked, one.left, one.right)
    print(season.tally)
    print(sum(hands.crashes.values()), hands.crashes)
