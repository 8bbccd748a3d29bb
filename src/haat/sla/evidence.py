"""The evidence of a breach: a frozen predicate that finds its calls, whatever comes later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from haat.sla.faults import AGAINST, RULES, SPENT, Rule, as_data, condition, from_data
from haat.sla.maintenance import Span
from haat.usage.model import id_bound


@dataclass(frozen=True, slots=True)
class Predicate:
    """Which calls: those that a service executed in ``[start, end)``, up to an ingest batch, without its maintenance.

    ``rules`` say which of them count and how. ``slow_from`` is the first latency bucket that is too slow, None where no
    latency was missed; ``against`` whether failed calls are meant.
    """

    service_id: UUID
    start: datetime
    end: datetime
    batch_to: int
    excluded: Sequence[Span]
    against: bool
    slow_from: int | None
    rules: Sequence[Rule] = RULES

    def data(self) -> dict[str, Any]:
        """Return the predicate as plain data, for good."""
        return {
            "service_id": str(self.service_id),
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "batch_to": self.batch_to,
            "excluded": [[span.start.isoformat(), span.end.isoformat()] for span in self.excluded],
            "against": self.against,
            "slow_from": self.slow_from,
            "rules": as_data(self.rules),
        }

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Predicate:
        """Return the predicate that `data` kept."""
        return cls(
            UUID(kept["service_id"]),
            datetime.fromisoformat(kept["start"]),
            datetime.fromisoformat(kept["end"]),
            kept["batch_to"],
            [Span(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in kept["excluded"]],
            kept["against"],
            kept["slow_from"],
            from_data(kept["rules"]),
        )

    def counted(self) -> tuple[str, dict[str, Any]]:
        """Return the calls that could count as an SQL condition on ``usage``, and its values."""
        values: dict[str, Any] = {
            "service_id": self.service_id,
            "id_from": id_bound(self.start),
            "id_to": id_bound(self.end),
            "batch_to": self.batch_to,
        }
        where = (
            "id >= %(id_from)s AND id < %(id_to)s AND batch <= %(batch_to)s AND mode = 'live'"
            " AND coalesce(executed_by, service_id) = %(service_id)s"
        )
        for place, span in enumerate(self.excluded):
            where += f" AND NOT (id >= %(out_{place}_from)s AND id < %(out_{place}_to)s)"
            values |= {f"out_{place}_from": id_bound(span.start), f"out_{place}_to": id_bound(span.end)}
        return where, values

    def broken(self) -> tuple[str, dict[str, Any]]:
        """Return the calls that broke the promise in the same way."""
        where, values = self.counted()
        verdict, bound = condition(self.rules)
        kinds = []
        if self.against:
            kinds.append(f"({verdict}) = ANY(%(against)s)")
            values["against"] = [one.value for one in AGAINST]
        if self.slow_from is not None:
            kinds.append(f"(({verdict}) = 'answered' AND latency_bucket({SPENT}) >= %(slow_from)s)")
            values["slow_from"] = self.slow_from
        return f"{where} AND ({' OR '.join(kinds) or 'false'})", {**values, **bound}
