"""docs/open-inference.md: its examples are run as they stand, its tables say what the code has."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from gateway.doors.test_inference import tasks
from gateway.rig import Market
from haat.catalog.tensors import TensorMapDraft
from haat.infra.inference.mapping import tensors_of

PAGE = (Path(__file__).parents[3] / "docs" / "open-inference.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    match = re.search(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None, f"the page has no block {kind}"
    return match[1]


def add(market: Market) -> None:
    pairs = ("hi-Deva>ur-Arab",)
    market.add_service("translate", dialect="task", category="translation", unit="characters", language_pairs=pairs)
    market.provider.behaviour = tasks


async def test_the_example_with_the_protocols_client_runs(market: Market) -> None:
    add(market)

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", block("python example")],
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "HAAT_ADDRESS": f"127.0.0.1:{market.port}", "HAAT_KEY": market.key},
        ).stdout

    assert await asyncio.to_thread(run) == "['NAMASTE', 'SHUKRIYA']\n"


async def test_the_example_without_a_client_runs(market: Market) -> None:
    add(market)
    response = await market.call("POST", "/v2/models/translation:hi-ur/infer", block("json request").encode())
    assert response.json() == json.loads(block("json answer"))


def test_the_example_of_a_mapping_can_be_listed_and_every_member_is_described() -> None:
    assert TensorMapDraft.model_validate(json.loads(block("json tensors"))).model == "nmt"
    table = PAGE[PAGE.index("| member | means |") :]
    described = set(re.findall(r"`([a-z0-9_]+)`", "\n".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE))))
    assert described | {"sample_rate"} == set(TensorMapDraft.model_fields)


def test_the_tensors_of_every_category_are_in_the_table() -> None:
    rows = dict(re.findall(r"^\| ([^|]*) \| ([^\n]*) \|$", PAGE, re.MULTILINE))
    for categories, cells in rows.items():
        for category in re.findall(r"`([a-z_]+)`", categories):
            if category in ("translation", "transliteration", "speech_to_text", "text_to_speech", "ocr", "embedding"):
                tensors = tensors_of(category)
                named = set(re.findall(r"`([A-Z_]+)`", cells))
                assert named == {*tensors.inputs.values(), *tensors.outputs.values()}, category
    assert "`translation`, `transliteration`" in rows
