"""What a listing says of a model's tensors, and how such a model passes acceptance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.doors.v2_model import ModelServer, translator
from haat.catalog.acceptance import check
from haat.catalog.drafts import SampleCall, ServiceDraft, VersionDraft, VersionPolicyDraft
from haat.catalog.tensors import TensorMapDraft, stored
from haat.gateway.market.snapshot import Directory, Snapshot
from haat.gateway.market.store import load
from haat.infra.net import parse_networks
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.errors import AcceptanceFailed, Conflict, ValidationFailed
from market import Market, draft

TENSORS: dict[str, Any] = {
    "model": "nmt",
    "inputs": {"text": "INPUT_TEXT", "source": "INPUT_LANGUAGE_ID", "target": "OUTPUT_LANGUAGE_ID"},
    "outputs": {"text": "OUTPUT_TEXT"},
}
SAMPLE = {"body": {"input": [{"text": "नमस्ते"}], "config": {"source": "hi", "target": "en"}}}


def version(**more: Any) -> dict[str, Any]:
    policy = {"tensors": TENSORS}
    return {"endpoint": "https://m.example", "dialect": "inference", "sample": SAMPLE, "policy": policy, **more}


def test_what_is_declared_is_what_the_gateway_has() -> None:
    draft = VersionDraft.parse(version())
    assert draft.policy.tensors is not None
    kept = draft.policy.model_dump(mode="json", exclude_defaults=True)
    assert kept == {"tensors": TENSORS}
    assert stored(kept) == draft.policy.tensors.tensor_map()
    assert stored({}) is None


@pytest.mark.parametrize(
    "more",
    [
        {"policy": {}},
        {"dialect": "task"},
        {"sample": {"body": {"text": "a"}}},
        {"endpoint": "", "policy": {"tensors": TENSORS, "serves": "0"}},
    ],
    ids=["no tensors", "another dialect", "no task", "adapter"],
)
def test_dialect_tensors_and_sample_go_together(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        VersionDraft.parse(version(**more))


@pytest.mark.parametrize(
    "change",
    [
        {"model": ""},
        {"inputs": {}},
        {"inputs": {"source": "A"}},
        {"inputs": {"text": "A", "other": "A"}},
        {"inputs": {"text": "A", "*": "B"}},
        {"inputs": {"text": "A", "Bad Name": "B"}},
        {"datatypes": {"UNKNOWN": "FP32"}},
        {"datatypes": {"INPUT_TEXT": "FP32"}},
        {"datatypes": {"OUTPUT_TEXT": "TEXT"}},
        {"inputs": {"audio": "A", "samples": "N"}},
        {"defaults": {"text": "a"}},
        {"defaults": {"tone": "a"}},
        {"rank": 3},
        {"sample_rate": 1},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_mapping_that_can_not_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TensorMapDraft.model_validate(TENSORS | change)


def test_it_is_sold_by_what_can_be_counted() -> None:
    listing = {"slug": "m", "name": "M", "category": "translation", "version": version(), "price": {"unit_price": "1"}}
    assert ServiceDraft.parse({**listing, "unit": "characters"}).unit == "characters"
    with pytest.raises(ValidationFailed):
        ServiceDraft.parse({**listing, "unit": "tokens"})


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(translator()) as running:
        yield running


async def tried(server: ModelServer, body: Any = SAMPLE["body"], **change: Any) -> tuple[bool, str]:
    report = await check(
        server.url,
        dialect="inference",
        sample=SampleCall(body=body),
        health_path="/v2/health/ready",
        warm_up_seconds=0.1,
        allowed=parse_networks(["127.0.0.0/8"]),
        tensors=TensorMapDraft.model_validate(TENSORS | change).tensor_map(),
    )
    return report.ok, report.steps[-1].detail


async def test_a_model_that_answers_its_sample_is_accepted(server: ModelServer) -> None:
    ok, detail = await tried(server)
    assert ok, detail


@pytest.mark.parametrize(
    ("body", "change", "says"),
    [
        (SAMPLE["body"], {"model": "other"}, "answered 404"),
        (SAMPLE["body"], {"rank": 1}, "the model takes BYTES"),
        (SAMPLE["body"], {"datatypes": {"OUTPUT_TEXT": "FP32"}}, "OUTPUT_TEXT: is BYTES and should be FP32"),
        ({"input": [{"text": "a"}]}, {}, "config.source"),
    ],
    ids=["another model", "another shape", "another datatype", "a sample that lacks something"],
)
async def test_one_that_does_not_is_told_why(server: ModelServer, body: Any, change: dict[str, Any], says: str) -> None:
    ok, detail = await tried(server, body, **change)
    assert not ok and says in detail


async def test_a_model_is_listed_accepted_and_known_to_the_gateway(market: Market, server: ModelServer) -> None:
    provider = await market.provider()
    service = draft("nmt", version=version(endpoint=server.url, warm_up_seconds=1), unit="characters")
    made = await market.catalog.register(provider, service)
    await market.catalog.versions.accept(provider, made.service_id, made.version_id)
    await market.catalog.publish(provider, made.service_id)
    directory = Directory(Snapshot())
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        await load(connection, directory)
    [known] = [one for one in directory.services.values() if one.slug == "nmt"]
    assert known.versions[0].dialect == "inference"
    assert known.versions[0].policy.tensors == TensorMapDraft.model_validate(TENSORS).tensor_map()


async def test_other_tensors_are_tried_before_they_count(market: Market, server: ModelServer) -> None:
    provider = await market.provider()
    service = draft("nmt", version=version(endpoint=server.url, warm_up_seconds=1), unit="characters")
    made = await market.catalog.register(provider, service)
    where = (provider, made.service_id, made.version_id)
    with pytest.raises(AcceptanceFailed, match="model takes BYTES"):
        await market.catalog.versions.set_policy(*where, VersionPolicyDraft.parse({"tensors": TENSORS | {"rank": 1}}))
    with pytest.raises(Conflict):
        await market.catalog.versions.set_policy(*where, VersionPolicyDraft())
    changed = TENSORS | {"version": "3"}
    await market.catalog.versions.set_policy(*where, VersionPolicyDraft.parse({"tensors": changed}))
    [kept] = await market.discovery.versions(provider, made.service_id)
    assert kept.policy["tensors"] == changed
