"""Parquet files of ours, read by a reader that nobody here wrote."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.infra.parquet import Column, Kind, Writer

COLUMNS = (
    Column("name", Kind.TEXT),
    Column("at", Kind.TIME),
    Column("status", Kind.INTEGER),
    Column("quantity", Kind.DECIMAL),
    Column("amount", Kind.FINE_DECIMAL),
)
rows = st.tuples(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001  # Hypothesis adds the zone itself
        lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=UTC)
    ),
    st.integers(-(2**31), 2**31 - 1),
    st.decimals(-(10**31), 10**31, places=6, allow_nan=False, allow_infinity=False),
    st.decimals(-(10**25), 10**25, places=12, allow_nan=False, allow_infinity=False),
)


def _file(given_rows: list[Any], rows_a_group: int = 3) -> bytes:
    writer = Writer(COLUMNS, rows_a_group=rows_a_group)
    return b"".join([*(writer.write(row) for row in given_rows), writer.close()])


@given(st.lists(rows, max_size=20), st.integers(1, 7))
def test_what_is_written_is_read(given_rows: list[Any], rows_a_group: int) -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(_file(given_rows, rows_a_group)))
    assert [tuple(row.values()) for row in table.to_pylist()] == given_rows


def test_columns_have_their_types_and_groups_their_counts() -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    data = _file([("x", at + timedelta(milliseconds=n), n, Decimal(n), Decimal(n)) for n in range(40)], 20)
    file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    plain = [pa.string(), pa.timestamp("ms", "UTC"), pa.int32()]
    assert file.schema_arrow.types == [*plain, pa.decimal128(38, 6), pa.decimal128(38, 12)]
    assert not any(field.nullable for field in file.schema_arrow)
    assert (file.metadata.num_rows, file.metadata.num_row_groups, file.metadata.created_by) == (40, 2, "haat")
    chunk = file.metadata.row_group(1).column(2)
    assert (chunk.compression, chunk.num_values, chunk.total_uncompressed_size > 80) == ("GZIP", 20, True)


def test_more_than_fourteen_row_groups_and_none_at_all() -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    assert pyarrow.parquet.read_table(io.BytesIO(_file([("x", at, 1, Decimal(1), Decimal(1))] * 40, 1))).num_rows == 40
    assert pyarrow.parquet.read_table(io.BytesIO(_file([]))).num_rows == 0


@pytest.mark.parametrize("value", ["0.0000001", "NaN", "1e33"])
def test_a_decimal_that_does_not_fit_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        _file([("x", datetime(2026, 11, 30, tzinfo=UTC), 1, Decimal(value), Decimal(1))])
