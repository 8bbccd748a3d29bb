"""What plugins bring to the control plane: payment providers and a registrar, and nothing of those that are broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pluggy
import pytest

from haat.invoices.ports import Checkout, Notice, PaymentProvider, Registrar, Registration
from haat.plugins import spec
from haat.plugins.manager import brought_payment_providers, brought_registrar


class Upi:
    name = "upi"

    def secrets(self) -> Sequence[str]:
        return []

    async def begin(self, *, order: UUID, amount: Decimal, description: str) -> Checkout:
        return Checkout(str(order), "upi://pay")

    def read(self, message: Mapping[str, Any]) -> Notice | None:
        return None


class Portal:
    def __init__(self, name: str) -> None:
        self.name = name

    async def register(self, document: Mapping[str, Any]) -> Registration:
        return Registration("1", "qr", datetime(2026, 12, 1, tzinfo=UTC))


def plugins(*brought: Any) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(spec.PROJECT)
    manager.add_hookspecs(spec)
    for one in brought:
        manager.register(one)
    return manager


def bringing(hook: str, *values: Any, broken: bool = False) -> Any:
    @spec.hookimpl(specname=hook)
    def bring() -> list[Any]:
        if broken:
            raise RuntimeError("it has a mistake")
        return list(values)

    return SimpleNamespace(bring=bring)


def test_payment_providers_are_found_by_name_and_broken_plugins_left_out(caplog: pytest.LogCaptureFixture) -> None:
    upi = Upi()
    assert isinstance(upi, PaymentProvider)
    hook = "haat_payment_providers"
    found = brought_payment_providers(plugins(bringing(hook, upi), bringing(hook, broken=True), bringing(hook, "upi")))
    assert found == {"upi": upi}
    assert "is left out" in caplog.text


def test_one_registrar_registers_and_another_is_said_to_be_too_many(caplog: pytest.LogCaptureFixture) -> None:
    assert brought_registrar(plugins()) is None
    assert isinstance(Portal("a"), Registrar)
    found = brought_registrar(plugins(bringing("haat_registrars", Portal("a"), Portal("b"))))
    assert found is not None and found.name == "a" and "registrar b is left out" in caplog.text
