"""`haat price`: what it prints, and what it asks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from haat.cli import price as module
from haat.cli.main import haat
from haat.kernel.prices import Step
from haat.rating.charge import Charge, RateCard
from haat.rating.simulation import Compared, Simulation

NOW = datetime(2026, 10, 1, tzinfo=UTC)


class _Simulator:
    """Keeps what it was asked, and finds two customers."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.customers = [
            Compared("customer-a", 12, Decimal("10.00"), Decimal("7.50"), []),
            Compared("customer-b", 1, Decimal("0.00"), Decimal("1234.00"), []),
        ]

    async def simulate(self, actor: Any, service: Any, **asked: Any) -> Simulation:
        self.asked = {"service": service, **asked}
        sums = Decimal("10.00"), Decimal("1241.50")
        return Simulation(service, "Translate", "2026-10", None, None, self.customers, *sums, 3)


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> _Simulator:
    found = _Simulator()

    class Platform:
        simulator = found

    def on_platform(settings: Any, use: Callable[[Any], Any]) -> Any:
        return asyncio.run(use(Platform))

    monkeypatch.setattr(module, "on_platform", on_platform)
    return found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(haat, ["price", *arguments])


def test_it_prints_who_would_have_paid_what_and_the_sum(simulator: _Simulator) -> None:
    result = run(str(uuid4()), "--unit-price", "0.01", "--free-units", "5", "--month", "2026-10")
    assert result.exit_code == 0, result.output
    assert "Translate, 2026-10" in result.output and "+1,231.50" in result.output and "-2.50" in result.output
    assert "3 calls would have had no price" in result.output
    draft = simulator.asked["draft"]
    assert (draft.unit_price, draft.free_units, simulator.asked["period"]) == (Decimal("0.01"), 5, "2026-10")


def test_a_card_comes_from_a_file_and_the_answer_goes_to_a_program(simulator: _Simulator, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"components": [{"model": "flat", "amount": "99"}]}))
    result = run(str(uuid4()), "--card", str(card), "--plan", "basic", "--limit", "1", "--json")
    found = json.loads(result.output)
    assert (found["simulated"], len(found["customers"])) == ("1241.50", 1)
    assert simulator.asked["draft"].components[0].model == "flat" and simulator.asked["plan"] == "basic"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing-like-it", "--plan", "basic"], "provider/service"),
        (["a/b", "--card", "CARD", "--unit-price", "1"], "not both"),
        (["a/b", "--card", "CARD"], "not JSON"),
        (["a/b"], "Say on what"),
        (["a/b", "--free-units", "5"], "goes with a --unit-price"),
    ],
)
def test_what_it_can_not_read_is_refused(
    simulator: _Simulator, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    card = tmp_path / "card.json"
    card.write_text("{")
    result = run(*[str(card) if one == "CARD" else one for one in arguments])
    assert result.exit_code == 2 and sentence in result.output


def test_what_can_not_be_charged_is_refused_with_its_field(simulator: _Simulator) -> None:
    result = run(str(uuid4()), "--unit-price", "-1")
    assert result.exit_code == 1 and "unit_price: " in result.output


def test_of_one_customer_it_says_how_the_amount_comes_together(simulator: _Simulator) -> None:
    steps = (
        Step("tier 1", Decimal(100), Decimal("0.05")),
        Step("tier 2", Decimal(20), Decimal("0.02"), Decimal("0.5")),
    )
    card = RateCard(uuid4(), uuid4(), 1, None, "characters", Decimal(1), Decimal(9), Decimal(0), NOW)
    charge = Charge(uuid4(), card.service, None, uuid4(), card, NOW, NOW, Decimal(129), Decimal(9), 1, steps=steps)
    simulator.customers = [Compared("customer-a", 1, Decimal("0.00"), Decimal("5.20"), [charge])]
    result = run(str(uuid4()), "--unit-price", "1", "--org", str(uuid4()))
    assert "characters, 9 free: 100 × 0.05 (tier 1) + 20 × 0.02 × 0.5 (tier 2) = 5.2" in result.output


def test_a_month_in_which_nobody_called_is_said_in_words(simulator: _Simulator) -> None:
    simulator.customers = []
    result = run(str(uuid4()), "--plan", "basic")
    assert result.exit_code == 0 and "Nobody used Translate in 2026-10" in result.output
