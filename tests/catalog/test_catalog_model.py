"""What a provider may hand in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from haat.catalog.drafts import PriceDraft, SampleCall, ServiceDraft, VersionDraft
from haat.catalog.model import DIALECTS, Status, check_transition
from haat.kernel.errors import Conflict, ValidationFailed
from market import draft

VERSION: dict[str, Any] = {"endpoint": "https://api.example.in", "sample": {}}
TASK_SAMPLE = {"body": {"input": [{"text": "a"}]}}


def test_a_draft_has_the_usual_values() -> None:
    made = draft()
    assert (made.visibility, made.region, made.retains_inputs, made.trains, made.max_requests_per_second) == (
        "public",
        "IN",
        False,
        False,
        100,
    )


ULCA = {
    **VERSION,
    "dialect": "ulca",
    "endpoint": "https://api.example.in/services/inference/translation",
    "sample": {"body": {"input": [{"text": "a"}], "config": {"source": "hi", "target": "ur"}}},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"slug": "A"},
        {"slug": "a b"},
        {"name": ""},
        {"name": "x" * 81},
        {"name": "a\0"},
        {"description": "\ud800"},
        {"category": "magic"},
        {"visibility": "secret"},
        {"region": "india"},
        {"docs_url": "javascript:alert(1)"},
        {"uptime_sla": "NaN"},
        {"uptime_sla": 101},
        {"max_requests_per_second": 0},
        {"credential": "two\r\nlines"},
        {"credential": "नमस्ते"},
        {"credential_header": "Host"},
        {"credential_header": "content-length"},
        {"credential_header": "Transfer-Encoding"},
        {"credential_header": "Proxy-Authorization"},
        {"credential_header": "X-Haat-Usage"},
        {"credential_header": "X: y\r\nZ"},
        {"status": "published"},
        {"org_id": "01900000-0000-7000-8000-000000000002"},
        {"version": {**VERSION, "endpoint": "https://user@api.example.in"}},
        {"version": {**VERSION, "endpoint": "https://api.example.in/?q=1"}},
        {"version": {**VERSION, "endpoint": "https://api.example.in/\0"}},
        {"version": {**VERSION, "policy": {"endpoints": ["https://user@b.example.in"]}}},
        {"version": {**VERSION, "policy": {"endpoints": ["https://b.example.in", "https://b.example.in/"]}}},
        {"version": {**VERSION, "policy": {"endpoints": ["https://api.example.in/"]}}},
        {"version": {**VERSION, "policy": {"endpoints": [f"https://{n}.example.in" for n in range(16)]}}},
        {"version": {**VERSION, "policy": {"websocket_secret": True}}},
        {"policy": {"capability": "Trans Late"}},
        {"policy": {"repeatable": "perhaps"}},
        {"policy": {"cache": {"ttl_seconds": 0}}},
        {"policy": {"cache": {"ttl_seconds": 31 * 86_400}}},
        {"policy": {"cache": {"items": True}}},  # it speaks no task schema
        {"policy": {"cache": {"headers": ["Cookie"]}}},
        {"policy": {"cache": {"headers": ["X-Haat-User"]}}},
        {"policy": {"cache": {"headers": ["X Model"]}}},
        {"policy": {"cache": {"generation": 4}}},
        {"policy": {"cache_generation": 4}},
        {"version": {**VERSION, "accepted_at": "2026-11-21T00:00:00Z"}},
        {"version": {**VERSION, "languages": ["Hindi"]}},
        {"version": {**VERSION, "language_pairs": ["hi"]}},
        {"version": {**VERSION, "timeout_ms": 10**9}},
        {"version": {**VERSION, "openapi": {"x": float("nan")}}},
        {"version": {**VERSION, "openapi": {"x\0": 1}}},
        {"version": {**VERSION, "sample": {"path": "invoke"}}},
        {"version": {**VERSION, "sample": {"path": "/a b"}}},
        {"version": {**VERSION, "sample": {"method": "CONNECT"}}},
        {"version": {**VERSION, "sample": {"expect_status": 500}}},
        {"version": {**VERSION, "sample": {"body": ["a", {"b": "\0"}]}}},
        {"version": {**VERSION, "dialect": "task"}},
        {"version": {**VERSION, "dialect": "task", "sample": {"body": {"input": []}}}},
        {"version": {**VERSION, "dialect": "task", "sample": {"body": {"input": "text"}}}},
        {"version": {**VERSION, "dialect": "task", "sample": {"body": {"input": 5}}}},
        {"version": ULCA, "unit": "tokens"},  # which nobody counts
        {"version": {**ULCA, "sample": {"body": {}}}},
        {"version": {**ULCA, "endpoint": "https://api.example.in/services/inference"}},
        {"version": {**ULCA, "policy": {"endpoints": ["https://api.example.in/other"]}}},
        {"version": {**ULCA, "policy": {"endpoints": ["https://api.example.in/services/inference/tts"]}}},
        {"version": {**VERSION, "dialect": "soap"}},
        {"version": {**VERSION, "dialect": "openai", "policy": {"model": "a\r\nb"}}},
        {"price": {"unit_price": 0.1}},
        {"price": {"unit_price": "-1"}},
        {"price": {"unit_price": "NaN"}},
        {"price": {"unit_price": "Infinity"}},
        {"price": {"unit_price": "0.0000000000001"}},
        {"price": {"unit_price": "1", "free_units": 1.5}},
    ],
)
def test_a_draft_that_could_not_be_kept_or_sold_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        draft(**changes)


def test_a_service_that_speaks_ulca_says_by_its_address_which_task_it_does() -> None:
    further = "https://two.example.in/inference/translation/"
    made = draft(version={**ULCA, "policy": {"endpoints": [further]}}, policy={"cache": {"items": True}})
    assert made.version.dialect == "ulca"


def test_a_form_is_told_each_field_without_its_input() -> None:
    with pytest.raises(ValidationFailed) as refusal:
        ServiceDraft.parse({"slug": "A secret", "version": {"endpoint": "nowhere"}})
    fields = {error["field"] for error in refusal.value.extensions["errors"]}
    assert {"slug", "name", "category", "version.endpoint", "version.sample", "price"} <= fields
    assert "A secret" not in str(refusal.value.extensions)


def test_a_sound_form_becomes_a_draft() -> None:
    made = VersionDraft.parse({**VERSION, "sample": {"path": "/invoke"}})
    assert isinstance(made, VersionDraft) and made.sample == SampleCall(path="/invoke")


@pytest.mark.parametrize("dialect", sorted({*DIALECTS} - {"inference", "ulca"}))
def test_a_version_says_what_it_speaks_and_what_it_calls_its_model(dialect: str) -> None:
    made = VersionDraft.parse({**VERSION, "dialect": dialect, "sample": TASK_SAMPLE, "policy": {"model": "org/m-1"}})
    assert (made.dialect, made.policy.model) == (dialect, "org/m-1")


def test_a_price_keeps_twelve_decimals() -> None:
    assert PriceDraft(unit_price=Decimal("0.000000000001")).unit_price == Decimal("1e-12")


LIFECYCLE = {
    ("draft", "published"),
    ("draft", "retired"),
    ("published", "deprecated"),
    ("published", "suspended"),
    ("published", "retired"),
    ("deprecated", "published"),
    ("deprecated", "suspended"),
    ("deprecated", "retired"),
    ("suspended", "published"),
    ("suspended", "deprecated"),
    ("suspended", "retired"),
}


@pytest.mark.parametrize("present", get_args(Status))
@pytest.mark.parametrize("wanted", get_args(Status))
def test_a_listing_goes_only_the_ways_of_its_lifecycle(present: Status, wanted: Status) -> None:
    if (present, wanted) in LIFECYCLE:
        check_transition(present, wanted)
    else:
        with pytest.raises(Conflict):
            check_transition(present, wanted)
