"""The page about the local engine says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from haat.models import region
from haat.models.engines import degrading
from haat.models.engines.local import batcher, batches, crew, engine, memory, pool
from haat.models.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models-engine.md").read_text()


def test_every_metric_is_there_and_no_other() -> None:
    assert set(re.findall(r"`(models_(?!memory_mb)[a-z0-9_]+)`", PAGE)) == set(METRICS)


def test_figures_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    assert f"**{batcher.QUEUE_BATCHES} × `max_items`**" in text
    assert f"{batcher.QUEUE_BYTES // 2**20} MiB of them" in text
    assert batcher.PRIORITY_SECONDS == 0.5 and "worth half a second" in text
    assert f"goes on for {batches.STOP_SECONDS:g} seconds" in text
    assert f"({degrading.MOST_BYTES // 2**20} MiB are kept for all models)" in text
    assert f"every {engine.MEASURE_SECONDS:g} seconds" in text
    assert f"up to {engine.MOST_SHARING} small models" in text
    assert f"{engine.MEMORY_SHARE:.0%}".replace("%", " %") in text
    assert memory.HOT == 3 and memory.HALF_LIFE == 60 and "more than three calls lately" in text
    assert f"1 to {pool.MOST_RETRY_AFTER} seconds" in text
    assert f"after {crew.FIRST_BACKOFF:g} s" in text and f"up to {crew.MOST_BACKOFF:g} s" in text
    assert f"Contents of {region.LEAST // 1024} KiB" in text and f"in {region.SIZE // 2**20} MiB of memory" in text


def test_the_table_is_the_measurement() -> None:
    measured = json.loads((ROOT / "bench" / "results" / "transport.json").read_text())["microseconds"]
    rows = re.findall(r"^\| (?:1|64|10) [kM]B \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for row, size in zip(rows, ("1000", "64000", "1000000", "10000000"), strict=True):
        for told, way in zip(row.split(" | "), measured.values(), strict=True):
            number, unit = told.replace(",", "").split()
            assert abs(float(number) * (1000 if unit == "ms" else 1) - way[size]) <= way[size] * 0.05 + 0.5
