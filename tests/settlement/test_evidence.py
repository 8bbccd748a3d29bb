"""Every call behind every line of a statement, in a file."""

from __future__ import annotations

import csv
import io
import tracemalloc
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow.parquet
import pytest

from haat.invoices.service import BilledCall
from haat.kernel.errors import NotFound, PermissionDenied
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from haat.settlement import evidence
from haat.settlement.evidence import COLUMNS

from .counting_house import MONTH, House, consumer, partner


async def _whole(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


async def _statement(house: House) -> tuple[Any, Any]:
    sale = await house.settled("10.00", "0.125", "3.00")
    (settlement,) = await house.settlements.close_all(PLATFORM, MONTH)
    return partner(sale.service.org), settlement


async def test_csv_and_parquet_name_the_same_calls_as_the_lines(house: House) -> None:
    owner, settlement = await _statement(house)
    text = (await _whole(house.evidence.stream(owner, settlement.id, "csv"))).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    table = pyarrow.parquet.read_table(
        io.BytesIO(await _whole(house.evidence.stream(owner, settlement.id, "parquet")))
    ).to_pylist()
    (line,) = (await house.settlements.statement(owner, settlement.id)).lines
    behind = (await house.settlements.calls(owner, line.id)).items
    assert (
        [row["request_id"] for row in rows] == [row["request_id"] for row in table] == [str(one.id) for one in behind]
    )
    assert [Decimal(row["quantity"]) for row in rows] == [row["quantity"] for row in table]
    assert sum(row["quantity"] for row in table) == line.quantity
    assert [Decimal(row["amount"]) for row in rows] == [row["amount"] for row in table]
    assert sum(row["amount"] for row in table) == line.gross
    assert [row["at"] for row in table] == [one.at for one in behind]
    assert {row["customer"] for row in table} == {line.customer} == {row["customer"] for row in rows}
    assert list(table[0]) == [column.name for column in COLUMNS]
    assert table[0]["line_id"] == str(line.id) and table[0]["status"] == 200


async def test_nobody_elses_evidence_is_streamed(house: House) -> None:
    owner, settlement = await _statement(house)
    stranger = partner(await house.bazaar.organisation("Stranger", kind="provider"))
    for actor, identifier in ((stranger, settlement.id), (owner, new_id())):
        with pytest.raises(NotFound):
            await anext(house.evidence.stream(actor, identifier, "csv"))
    with pytest.raises(PermissionDenied):
        await anext(house.evidence.stream(consumer(settlement.org_id), settlement.id, "csv"))


@pytest.mark.parametrize("form", ["csv", "parquet"])
async def test_memory_does_not_grow_with_the_number_of_calls(
    house: House, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are read through the line's predicate; here they are made up, so that there may be many."""
    owner, settlement = await _statement(house)
    made = [
        BilledCall(
            UUID(int=n), house.clock.now(), 200, "completed", voided=False, quantity=Decimal(n), amount=Decimal(n)
        )
        for n in range(5000)
    ]

    async def peak(batches: int) -> int:
        async def many(*_: Any) -> AsyncIterator[Any]:
            for _ in range(batches):
                yield made

        monkeypatch.setattr(evidence, "batches_of_calls", many)
        tracemalloc.start()
        written = 0
        async for piece in house.evidence.stream(owner, settlement.id, form):
            written += len(piece)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert written
        return most

    assert await peak(36) < await peak(12) * 1.2
