"""docs/open-inference.md: its examples are run as they stand, its tables say what the code has."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from gateway.dialects import grpc_rig
from gateway.doors.test_inference import tasks
from gateway.rig import Market
from haat.bridge.status import STATUS
from haat.catalog.tensors import TensorMapDraft
from haat.gateway.upstreams.dispatch import UNAVAILABLE
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


async def test_the_example_of_a_stream_runs(market: Market, tmp_path: Path) -> None:
    home = tmp_path / "bridge"
    with grpc_rig.model_server(tmp_path) as models, grpc_rig.bridge(home):
        grpc_rig.lend(home, tmp_path)
        grpc_rig.add(market, models.url, grpc_rig.NARRATOR, "narrator", category="nlp")

        def run() -> str:
            return subprocess.run(
                [sys.executable, "-c", block("python stream example")],
                stdout=subprocess.PIPE,
                text=True,
                timeout=60,
                check=True,
                env={**os.environ, "HAAT_URL": f"http://127.0.0.1:{market.port}", "HAAT_KEY": market.key},
            ).stdout

        assert await asyncio.to_thread(run) == block("text stream answer")


def test_what_every_status_becomes_is_in_the_table() -> None:
    rows = re.findall(r"^\| (`[A-Z_`, ]+`)[^|]* \| ([0-9, ]+)[^|]*\| ([^|]*)\|$", PAGE, re.MULTILINE)
    told = {}
    for names, statuses, failure in rows:
        codes, numbers = re.findall(r"[A-Z_]+", names), [int(one) for one in re.findall(r"[0-9]+", statuses)]
        numbers = numbers[:1] if len(numbers) != len(codes) else numbers
        for at, code in enumerate(codes):
            told[code] = numbers[at if len(numbers) == len(codes) else 0]
            assert (told[code] in UNAVAILABLE) == bool(failure.strip()), code
    assert told == {code.name: status for code, status in STATUS.items()}


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
