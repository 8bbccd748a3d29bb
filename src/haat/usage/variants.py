"""What calls say of the versions they were divided between: read by whoever divides them, for all tenants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.usage import store


@dataclass(frozen=True, slots=True)
class VariantUsage:
    """Calls that a version executed under a rollout. ``latency`` is the sketch of `haat.usage.model.quantile`.

    ``agreed`` and ``compared`` are of shadow calls: how many answers were equal, of those that could be compared.
    """

    calls: int = 0
    errors: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)
    agreed: int = 0
    compared: int = 0


@dataclass(frozen=True, slots=True)
class SubjectValues:
    """One value a subject: how many, their sum and the sum of their squares; ``seen`` counts unsettled ones, too."""

    seen: int
    subjects: int
    total: float
    squares: float


class Variants:
    """Counts calls by variant. The rows are many organisations': nothing of theirs but counts and sums goes out."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def usage(self, rollout: UUID, start: datetime, end: datetime) -> dict[str, VariantUsage]:
        """Return what each variant did in a time, by its name; shadow calls under ``shadow``.

        Not counted is what no provider was asked for (answers given again, refusals), and 429s.
        """
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.by_variant(connection, rollout, start, end)
        found: dict[str, VariantUsage] = {}
        for row in rows:
            one = found.get(row["arm"], VariantUsage())
            found[row["arm"]] = VariantUsage(
                one.calls + row["calls"],
                one.errors + row["errors"],
                {**one.latency, row["bucket"]: one.latency.get(row["bucket"], 0) + row["calls"]},
                one.agreed + row["agreed"],
                one.compared + row["compared"],
            )
        return found

    async def subjects(
        self, rollout: UUID, start: datetime, until: datetime, settle_seconds: int, *, latency: bool
    ) -> dict[str, SubjectValues]:
        """Return one value a subject by variant: its mean over its first ``settle_seconds``, once these are over.

        A subject is a user within an organisation, or an application that names no user. The value is the share of
        its calls that succeeded, or with ``latency`` the milliseconds that those took.
        """
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.by_subject(connection, rollout, start, until, settle_seconds, latency=latency)
        return values_of(rows)


def values_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, SubjectValues]:
    """Return what `haat.usage.subjects.SUMS` gives, by variant."""
    return {
        row["arm"]: SubjectValues(row["seen"], row["subjects"], float(row["total"]), float(row["squares"]))
        for row in rows
    }
