"""Settlement: each invoice line's net value, split between the provider and the platform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from haat.kernel.money import share, total


@dataclass(frozen=True, slots=True)
class SettledLine:
    """An invoice line's net value and its split; the provider's part is rounded half-up once."""

    invoice_line: UUID
    gross: Decimal
    rate: Decimal
    provider: Decimal
    platform: Decimal


@dataclass(frozen=True, slots=True)
class Totals:
    gross: Decimal
    provider: Decimal
    platform: Decimal


def settle_line(invoice_line: UUID, gross: Decimal, rate: Decimal) -> SettledLine:
    """Split ``gross`` (whole paise, net of tax): what the provider's rounding leaves is the platform's."""
    provider, platform = share(gross, rate)
    return SettledLine(invoice_line, gross, rate, provider, platform)


def totals(lines: Sequence[SettledLine]) -> Totals:
    return Totals(
        total(line.gross for line in lines),
        total(line.provider for line in lines),
        total(line.platform for line in lines),
    )
