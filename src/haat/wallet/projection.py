"""What became of wallets and budgets, as tables: a fold of the events of the streams ``wallet/{organisation}``."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection
from haat.infra.projections import Fold
from haat.kernel.events import DomainEvent


async def apply(connection: Connection, event: DomainEvent) -> None:
    """Write what an event says; everything it needs is in it."""
    data, org = event.data, UUID(event.stream.removeprefix("wallet/"))
    match event.type:
        case "wallet.granted":
            await connection.execute(
                """
                INSERT INTO wallet_grants (id, org_id, kind, amount, priority, granted_at, expires_at, key, note)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
                """,
                (
                    UUID(data["grant"]),
                    org,
                    data["kind"],
                    Decimal(data["amount"]),
                    data["priority"],
                    event.at,
                    _time(data["expires_at"]),
                    data["key"],
                    data["note"],
                ),
            )
        case "wallet.paid" | "wallet.expired":
            for position, part in enumerate(data["parts"]):
                await connection.execute(
                    """
                    INSERT INTO wallet_burns (id, position, org_id, grant_id, amount, reason, reference, at)
                    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
                    """,
                    (
                        event.id,
                        position,
                        org,
                        UUID(part["grant"]),
                        Decimal(part["amount"]),
                        "invoice" if event.type == "wallet.paid" else "expiry",
                        data["reference"],
                        event.at,
                    ),
                )
        case "wallet.mode_set" if data["subscription"] is None:
            await connection.execute(
                """
                INSERT INTO wallets (org_id, mode) VALUES (%s, %s)
                ON CONFLICT (org_id) DO UPDATE SET mode = excluded.mode
                """,
                (org, data["mode"]),
            )
        case "wallet.mode_set":
            await connection.execute(
                """
                INSERT INTO wallet_modes (subscription_id, org_id, mode) VALUES (%s, %s, %s)
                ON CONFLICT (subscription_id) DO UPDATE SET mode = excluded.mode
                """,
                (UUID(data["subscription"]), org, data["mode"]),
            )
        case "budget.set":
            await _forget_alerts(connection, UUID(data["budget"]))  # another amount is reached anew
            await connection.execute(
                """
                INSERT INTO wallet_budgets (id, org_id, application_id, subscription_id, amount, hard_stop, set_at)
                VALUES (%s, %s, %s, %s, %s, %s, %s)
                ON CONFLICT (id) DO UPDATE
                    SET amount = excluded.amount, hard_stop = excluded.hard_stop, set_at = excluded.set_at
                """,
                (
                    UUID(data["budget"]),
                    org,
                    _id(data["application"]),
                    _id(data["subscription"]),
                    Decimal(data["amount"]),
                    data["hard_stop"],
                    event.at,
                ),
            )
        case "budget.removed":
            await _forget_alerts(connection, UUID(data["budget"]))
            await connection.execute("DELETE FROM wallet_budgets WHERE id = %s", (UUID(data["budget"]),))
        case "budget.reached":
            await connection.execute(
                """
                INSERT INTO wallet_alerts (budget_id, period, threshold, org_id, spent, at)
                VALUES (%s, %s, %s, %s, %s, %s)
                """,
                (
                    UUID(data["budget"]),
                    data["period"],
                    data["threshold"],
                    org,
                    Decimal(data["spent"]),
                    event.at,
                ),
            )


async def _forget_alerts(connection: Connection, budget: UUID) -> None:
    await connection.execute("DELETE FROM wallet_alerts WHERE budget_id = %s", (budget,))


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _id(text: Any) -> UUID | None:
    return UUID(text) if text else None


WALLETS = Fold(
    "wallets",
    ("wallets", "wallet_modes", "wallet_grants", "wallet_burns", "wallet_budgets", "wallet_alerts"),
    ("wallet",),
    apply,
)
