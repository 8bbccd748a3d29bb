"""What a job reserves of its plan's quotas when it is handed in, and whether that is still there.

Reserved is the most that the items can use: one request each, or the bytes of each body where the quota counts
something else (no text has more characters or tokens than bytes), at most the version's ``max_units``. Open jobs
share what is left after the calls that the usage store knows. An item that ends gives its part back; what it used
is counted by the gateway, which has the last word for each call.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from haat.infra.postgres import Connection
from haat.jobs import store
from haat.jobs.store import Plan
from haat.kernel.clock import Period, anniversary_of, day_of, month_of
from haat.kernel.errors import QuotaExhausted
from haat.kernel.ids import id_at
from haat.language.messages import _


def units_of(plan: Plan, size: int) -> int:
    """Return the units that one item with a body of ``size`` bytes reserves."""
    if plan.unit == "requests":
        return 1
    return min(size, plan.max_units) if plan.max_units else size


async def reserve(
    connection: Connection, *, org: UUID, application: UUID, job: UUID, plan: Plan, units: int, at: datetime
) -> None:
    """Reserve units for a job within the caller's transaction, which holds the organisation's lock on jobs.

    Raise QuotaExhausted with what remains when they don't fit into what is left of the day or the month.
    """
    held = await store.held(connection, application, plan.service_id)
    for name, quota, period in _windows(plan, at):
        first = id_at(int(period.start.timestamp() * 1000))
        used = await store.used(connection, org, application, plan.service_id, plan.unit, period.start, first)
        remaining = max(0, quota - used - held)
        if units > remaining:
            raise QuotaExhausted(
                _(
                    "The job may use %(units)s %(unit)s, and %(remaining)s of the plan's quota remain beside what was "
                    "used and what other jobs have reserved.",
                    units=f"{units:,}",
                    unit=plan.unit.replace("_", " "),
                    remaining=f"{remaining:,}",
                ),
                limit=name,
                quota=quota,
                remaining=remaining,
                reset_seconds=max(1, int((period.end - at).total_seconds())),
                unit=plan.unit,
            )
    await store.hold(connection, job, org, application, plan.service_id, units)


def _windows(plan: Plan, at: datetime) -> list[tuple[str, int, Period]]:
    if plan.overage:
        return []
    windows = []
    if plan.per_month is not None:
        by_anniversary = plan.reset == "anniversary"
        month = anniversary_of(at, plan.started_at, plan.zone) if by_anniversary else month_of(at, plan.zone)
        windows.append(("month", plan.per_month, month))
    if plan.per_day is not None:
        windows.append(("day-quota", plan.per_day, day_of(at, plan.zone)))
    return windows
