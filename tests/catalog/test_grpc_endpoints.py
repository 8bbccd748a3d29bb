"""What a listing may say of a model over gRPC, and how such a model passes acceptance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.dialects.grpc_rig import MOODY, NARRATOR, NMT, Models, bridge, model_server
from haat.catalog.acceptance import Report, check
from haat.catalog.drafts import SampleCall, VersionDraft
from haat.infra.inference.upstream import Upstream, header_of, read_address, read_header
from haat.infra.net import check_url, parse_networks
from haat.kernel.errors import AddressForbidden, ValidationFailed

SAMPLE = {"body": {"input": [{"text": "a b"}], "config": {}}}
TENSORS: dict[str, Any] = {"model": "m", "inputs": {"text": "TEXT"}, "outputs": {"text": "SAID"}}


def version(endpoint: str, tensors: dict[str, Any] = TENSORS, **more: Any) -> dict[str, Any]:
    policy = {"tensors": tensors, **more.pop("policy", {})}
    return {"endpoint": endpoint, "dialect": "inference", "sample": SAMPLE, "policy": policy, **more}


def test_a_server_over_grpc_can_be_listed() -> None:
    draft = VersionDraft.parse(version("grpcs://models.example:8001", policy={"endpoints": ["grpc://b.example:1"]}))
    assert draft.policy.tensors is not None and not draft.policy.tensors.decoupled
    VersionDraft.parse(version("grpcs://models.example:8001", TENSORS | {"decoupled": True}))


@pytest.mark.parametrize(
    "wrong",
    [
        {**version("grpc://m.example:1"), "dialect": "task", "policy": {}},
        {**version("https://m.example"), "policy": {"tensors": TENSORS | {"decoupled": True}}},
        version("grpc://m.example:1", TENSORS | {"decoupled": True}, policy={"endpoints": ["https://m.example"]}),
        version("grpc://m.example:1", policy={"websocket": True}),
        version(
            "grpc://m.example:1",
            TENSORS | {"decoupled": True},
            policy={"answer": [{"do": "remove", "path": "usage"}]},
        ),
        version("grpcx://m.example:1"),
    ],
    ids=["dialect", "parts over HTTP", "parts over HTTP too", "websocket", "changes", "scheme"],
)
def test_what_does_not_go_together_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        VersionDraft.parse(wrong)


@pytest.mark.parametrize(
    "url",
    [
        "grpc://m.example",
        "grpc://m.example:8001/path",
        "grpc://:8001",
        "grpc://m.example:22",
        "grpc://a:b@m.example:8001",
        "grpc://m.example:8001?x",
        "unix://m.example:1",
    ],
)
def test_an_address_is_a_host_and_a_port(url: str) -> None:
    with pytest.raises(AddressForbidden):
        check_url(url, https_only=False, grpc=True)


def test_only_who_says_so_takes_addresses_over_grpc() -> None:
    assert check_url("grpcs://m.example:8001", https_only=True, grpc=True) == ("grpcs", "m.example", 8001)
    for url, https_only, grpc in (("grpc://m.example:8001", True, True), ("grpcs://m.example:8001", False, False)):
        with pytest.raises(AddressForbidden):
            check_url(url, https_only=https_only, grpc=grpc)


_names = st.text("abcXYZ019-_.~:@é", min_size=1, max_size=9)


@given(_names, st.none() | _names)
def test_an_address_may_name_model_and_version(model: str, number: str | None) -> None:
    address = f"grpc://h:1/{model}" + (f"/versions/{number}" if number else "")
    assert read_address(address) == ("grpc://h:1", model, number or "")
    assert read_address("grpcs://h:1/") == ("grpcs://h:1", "", "")


@pytest.mark.parametrize("address", ["grpc://", "http://h:1", "grpc://h:1/m/versions", "grpc://h:1/m/infer", ""])
def test_no_other_address_is_read(address: str) -> None:
    with pytest.raises(ValueError, match="grpc://host:port"):
        read_address(address)


def test_whom_to_ask_is_told_in_one_header() -> None:
    upstream = Upstream("grpc://h:1", ("10.0.0.0/8",), (("X-Key", "a b"),))
    assert read_header(header_of(upstream)) == upstream


# --- acceptance ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("bridge")
    with bridge(made):
        yield made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    with model_server(tmp_path_factory.mktemp("models")) as server:
        yield server


async def tried(url: str, tensors: Any, home: Path | None, text: str = "a b", **more: Any) -> Report:
    config = {"source": "hi", "target": "ur"} if tensors.model == "nmt" else {}
    more = {"https_only": False, "allowed": parse_networks(["127.0.0.0/8"]), "warm_up_seconds": 1.0, **more}
    sample = SampleCall.parse({"body": {"input": [{"text": text}], "config": config}})
    return await check(
        url, dialect="inference", sample=sample, tensors=tensors, health_path="/v2/health/ready", data_dir=home, **more
    )


@pytest.mark.parametrize(
    "tensors", [NMT, structs.replace(NMT, version="3"), MOODY, NARRATOR], ids=lambda one: one.model
)
async def test_a_model_that_answers_its_sample_is_accepted(home: Path, models: Models, tensors: Any) -> None:
    report = await tried(models.url, tensors, home)
    assert report.ok, [asdict(step) for step in report.steps]
    assert [step.name for step in report.steps] == ["address", "health", "sample call"]


@pytest.mark.parametrize(
    ("tensors", "text", "says"),
    [
        (MOODY, "fail INVALID_ARGUMENT no such word", "no such word"),
        (structs.replace(MOODY, model="nobody"), "a", "unknown model"),
        (structs.replace(NARRATOR, decoupled=False), "a", "decoupled"),
        (NARRATOR, "wait:0", "no part"),
        (NARRATOR, "a error:sorry", "sorry"),
    ],
)
async def test_one_that_does_not_is_refused_with_the_reason(
    home: Path, models: Models, tensors: Any, text: str, says: str
) -> None:
    report = await tried(models.url, tensors, home, text, warm_up_seconds=0.3)
    assert not report.ok and says in report.steps[-1].detail


async def test_addresses_are_looked_at_as_any(home: Path, models: Models) -> None:
    for url, more, says in (
        (models.url, {"allowed": ()}, "not a public address"),
        (models.url, {"allowed": (), "https_only": True}, "Only https"),
        (models.url.replace("127.0.0.1", "localhost"), {"allowed": ()}, "not a public address"),
    ):
        report = await tried(url, MOODY, home, **more)
        assert [step.name for step in report.steps] == ["address"] and says in report.steps[0].detail


async def test_without_a_bridge_the_report_says_so(models: Models, tmp_path: Path) -> None:
    for nowhere in (None, tmp_path):
        report = await tried(models.url, MOODY, nowhere)
        assert not report.ok and "haat bridge" in report.steps[0].detail
