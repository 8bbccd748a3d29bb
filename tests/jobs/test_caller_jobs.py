"""Jobs as callers have them: handed in at the gateway by key, called through it, and fetched from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from jobs.caller_rig import Town, bearer, open_town
from jobs.job_rig import until

LARGE = {"per_minute": 1_000_000, "max_concurrent": 1000}


@pytest.fixture
async def town(cluster: Any, database: Any) -> AsyncIterator[Town]:
    async with open_town(cluster, database) as made:
        await made.service("echo")
        await made.plan("large", **LARGE)
        yield made


@pytest.fixture
async def key(town: Town) -> str:
    actor, application, key = await town.consumer()
    await town.subscribe(actor, application, "echo")
    await town.known(key)
    return key


async def hand_in(town: Town, key: str, count: int, **query: str) -> Any:
    lines = b"".join(b'{"n":%d}\n' % n for n in range(count))
    return await town.client.post(
        "/v1/jobs",
        params={"service": "acme/echo", **query},
        content=lines,
        headers={**bearer(key), "Content-Type": "application/jsonl"},
    )


async def results(town: Town, key: str, job: str, **query: str) -> list[dict[str, Any]]:
    answer = await town.client.get(f"/v1/jobs/{job}/results", params=query, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_a_job_reaches_what_its_key_opens_and_nothing_else(town: Town) -> None:
    await town.service("other")
    actor, application, whole = await town.consumer()
    for slug in ("echo", "other"):
        await town.subscribe(actor, application, slug)
    await town.known(whole)
    narrow = await town.platform.identity.create_key(actor, application, scopes=["invoke:acme/echo"])
    await town.known(narrow.key)
    refused = await town.client.post(
        "/v1/jobs", params={"service": "acme/other"}, content=b'{"n":1}\n',
        headers={**bearer(narrow.key), "Content-Type": "application/jsonl"},
    )  # fmt: skip
    assert (refused.status_code, refused.json()["code"]) == (403, "OUT_OF_SCOPE")
    job = (await hand_in(town, narrow.key, 3)).json()["id"]
    assert (await town.ended(narrow.key, job))["items"]["succeeded"] == 3
    town.counting.status = lambda n: 400
    wide = (await hand_in(town, whole, 1)).json()["id"]
    await town.ended(whole, wide)
    again = await town.client.post(f"/v1/jobs/{wide}/retry", headers=bearer(narrow.key))
    assert (again.status_code, again.json()["code"]) == (403, "OUT_OF_SCOPE")
    assert (await town.client.post(f"/v1/jobs/{wide}/retry", headers=bearer(whole))).status_code == 200


@pytest.mark.speaks("jobs")
async def test_a_file_of_inputs_is_called_line_by_line_and_metered_like_any_calls(town: Town, key: str) -> None:
    answer = await hand_in(town, key, 300, priority="10", name="first")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" and answer.headers["x-request-id"]
    assert (job["items"]["total"], job["name"], job["priority"]) == (300, "first", 10)
    done = await town.ended(key, job["id"])
    assert done["status"] == "completed" and done["progress"] == 1.0, done
    assert done["items"] == {"total": 300, "waiting": 0, "succeeded": 300, "failed": 0, "cancelled": 0}
    found = await results(town, key, job["id"])
    assert [(one["index"], one["answer"]) for one in found] == [(n, {"echo": n}) for n in range(300)]
    assert set(town.counting.seen.values()) == {1} and len(town.counting.seen) == 300

    async def metered() -> bool:
        rows = await town.rows(
            "SELECT count(DISTINCT id) AS calls FROM usage WHERE outcome = 'completed' AND tags ->> 'job' = %s",
            job["id"],
        )
        return bool(rows[0]["calls"] == 300)

    await until(metered)
    assert len({one["request_id"] for one in found}) == 300


async def test_one_input_is_a_job_too_and_its_progress_is_told_as_events(town: Town, key: str) -> None:
    body = {"service": "acme/echo", "input": {"n": 7}, "metadata": {"a": "b"}, "mail": True}
    job = (await town.client.post("/v1/jobs", json=body, headers=bearer(key))).json()
    async with town.client.stream("GET", f"/v1/jobs/{job['id']}/events", headers=bearer(key)) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        told = (await stream.aread()).decode()
    assert told.rstrip().rpartition("\n\n")[2].startswith("event: end\n")
    assert json.loads(told.rstrip().rpartition("data: ")[2])["items"]["succeeded"] == 1
    listed = (await town.client.get("/v1/jobs", headers=bearer(key))).json()
    assert [one["id"] for one in listed["items"]] == [job["id"]] and listed["items"][0]["metadata"] == {"a": "b"}

    async def mailed() -> bool:
        return any(b"is completed" in file.read_bytes() for file in (town.settings.data_dir / "mail").glob("*.eml"))

    await until(mailed)


async def test_the_jobs_key_is_its_own_stored_as_a_hash_and_ended_with_it(town: Town, key: str) -> None:
    job = (await hand_in(town, key, 3)).json()["id"]
    await town.ended(key, job)
    [row] = await town.rows("SELECT revoked_at, scopes FROM credentials WHERE name = %s", f"job {job}")
    assert row["revoked_at"] is not None and row["scopes"] == ["invoke", "job"]
    everything = json.dumps(await town.rows("SELECT * FROM caller_jobs"), default=str)
    assert key not in everything and "haat_live_" not in everything
    [owner] = await town.rows("SELECT application_id, org_id FROM caller_jobs")
    listed = await town.rows("SELECT id FROM credentials WHERE application_id = %s", owner["application_id"])
    assert len(listed) == 2


async def test_items_that_fail_are_tried_again_and_those_that_are_refused_are_not(town: Town, key: str) -> None:
    town.counting.status = lambda n: 500 if n == 1 and town.counting.seen["1"] == 1 else 400 if n == 2 else 200
    job = (await hand_in(town, key, 4)).json()["id"]
    done = await town.ended(key, job)
    assert (done["items"]["succeeded"], done["items"]["failed"]) == (3, 1)
    [failed] = await results(town, key, job, status="failed")
    assert (failed["index"], failed["http_status"], failed["attempts"]) == (2, 400, 1)
    assert [one["attempts"] for one in await results(town, key, job)] == [1, 2, 1, 1]
    town.counting.status = lambda n: 200
    again = (await town.client.post(f"/v1/jobs/{job}/retry", headers=bearer(key))).json()
    assert again["status"] == "waiting" and again["items"]["waiting"] == 1
    assert (await town.ended(key, job))["items"]["succeeded"] == 4
    assert town.counting.seen["0"] == 1 and town.counting.seen["2"] == 2
    refused = await town.client.post(f"/v1/jobs/{job}/retry", headers=bearer(key))
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")


async def test_cancelling_midway_keeps_what_is_done_and_begins_nothing_more(town: Town, key: str) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.05)

    town.counting.pause = slowly
    job = (await hand_in(town, key, 5000)).json()["id"]

    async def begun() -> bool:
        return sum(town.counting.seen.values()) > 100

    await until(begun)
    asked = (await town.client.post(f"/v1/jobs/{job}/cancel", headers=bearer(key))).json()
    assert asked["status"] in ("cancelling", "cancelled")
    done = await town.ended(key, job)
    assert done["status"] == "cancelled" and 0 < done["items"]["succeeded"] < 5000
    assert done["items"]["succeeded"] + done["items"]["cancelled"] == 5000
    assert sum(town.counting.seen.values()) == done["items"]["succeeded"], "what was executed is kept"
    assert await town.rows("SELECT FROM caller_job_holds") == []


async def test_another_tenant_and_another_application_see_nothing(town: Town, key: str) -> None:
    job = (await hand_in(town, key, 1)).json()["id"]
    stranger, _, other = await town.consumer("stranger@example.in")
    await town.known(other)
    for method, path in (
        ("GET", ""), ("GET", "/results"), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry"),
    ):  # fmt: skip
        answer = await town.client.request(method, f"/v1/jobs/{job}{path}", headers=bearer(other))
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND"), path
    assert (await town.client.get("/v1/jobs", headers=bearer(other))).json()["items"] == []
    page = await town.platform.caller_jobs.seen_all(stranger, status=None, cursor=None)
    assert page.items == []


async def test_an_introduction_cannot_be_brought_along(town: Town, key: str) -> None:
    forged = {"X-Haat-Caller": "a b c live r 1", "X-Haat-Caller-Signature": "00"}
    assert (await town.client.get("/v1/jobs", headers={**bearer(key), **forged})).status_code == 200
    assert (await town.client.get("/v1/jobs", headers=forged)).status_code == 401


@pytest.mark.parametrize(
    ("query", "content", "status", "code", "field"),
    [
        ({"service": "acme/echo"}, b"", 400, "INVALID_REQUEST", "input"),
        ({"service": "acme/echo"}, b'{"n":1}\n{"n":', 400, "INVALID_REQUEST", "line 2"),
        ({"service": "acme/echo"}, b"\xff\xfe\n", 400, "INVALID_REQUEST", "line 1"),
        ({"service": "acme/echo"}, b"[1]\n", 400, "INVALID_REQUEST", "line 1"),
        ({"service": "acme/echo"}, b"[" * 100_000, 400, "INVALID_REQUEST", "line 1"),
        ({"service": "acme/none"}, b"{}", 404, "SERVICE_NOT_FOUND", "service"),
        ({"service": "../x"}, b"{}", 422, "VALIDATION_FAILED", "service"),
        ({"service": "acme/echo", "path": "x"}, b"{}", 422, "VALIDATION_FAILED", "path"),
        ({"service": "acme/echo", "priority": "11"}, b"{}", 422, "VALIDATION_FAILED", "priority"),
        ({"service": "acme/echo", "prio": "1"}, b"{}", 422, "VALIDATION_FAILED", "prio"),
        ({}, b"{}", 422, "VALIDATION_FAILED", "service"),
    ],
)
async def test_what_is_no_job_is_refused_whole_and_by_name(
    town: Town, key: str, query: dict[str, str], content: bytes, status: int, code: str, field: str
) -> None:
    answer = await town.client.post(
        "/v1/jobs", params=query, content=content, headers={**bearer(key), "Content-Type": "application/jsonl"}
    )
    said = answer.json()
    assert (answer.status_code, said["code"]) == (status, code), said
    assert field == said.get("field") or field in [one["field"] for one in said.get("errors", [])]
    assert await town.rows("SELECT FROM caller_jobs") == []
    assert await town.rows("SELECT FROM credentials WHERE scopes @> '{job}'") == []


async def test_a_quota_is_reserved_for_all_items_and_given_back_as_they_end(town: Town) -> None:
    await town.plan("small", quota_per_month=10, per_minute=1000)
    actor, application, key = await town.consumer()
    await town.subscribe(actor, application, "echo", "small")
    await town.known(key)
    refused = await hand_in(town, key, 11)
    assert refused.status_code == 429, refused.text
    assert {name: refused.json()[name] for name in ("code", "limit", "quota", "remaining", "unit")} == {
        "code": "QUOTA_EXHAUSTED", "limit": "month", "quota": 10, "remaining": 10, "unit": "requests",
    }  # fmt: skip
    assert int(refused.headers["retry-after"]) > 0

    gate = asyncio.Event()

    async def held() -> None:
        await gate.wait()

    town.counting.pause = held
    both = await asyncio.gather(hand_in(town, key, 8), hand_in(town, key, 8))
    assert sorted(one.status_code for one in both) == [202, 429]
    loser = next(one for one in both if one.status_code == 429)
    assert loser.json()["remaining"] == 2
    winner = next(one for one in both if one.status_code == 202).json()["id"]
    town.counting.status = lambda n: 400 if n >= 5 else 200
    gate.set()
    done = await town.ended(key, winner)
    assert (done["items"]["succeeded"], done["items"]["failed"]) == (5, 3)
    assert await town.rows("SELECT FROM caller_job_holds WHERE held > 0") == []

    async def counted() -> bool:
        rows = await town.rows("SELECT FROM usage WHERE outcome = 'completed'")
        return len(rows) == 5

    await until(counted)
    assert (await hand_in(town, key, 6)).json()["remaining"] == 5
    assert (await hand_in(town, key, 5)).status_code == 202


async def test_a_job_waits_for_the_plans_pace_instead_of_failing(town: Town) -> None:
    await town.plan("narrow", max_concurrent=2, per_minute=10_000)
    actor, application, key = await town.consumer()
    await town.subscribe(actor, application, "echo", "narrow")
    await town.known(key)

    async def slowly() -> None:
        await asyncio.sleep(0.02)

    town.counting.pause = slowly
    job = (await hand_in(town, key, 60)).json()["id"]
    done = await town.ended(key, job)
    assert done["items"]["succeeded"] == 60
    assert {one["attempts"] for one in await results(town, key, job)} == {1}


async def test_a_job_ends_when_the_key_that_handed_it_in_is_revoked(town: Town) -> None:
    actor, application, key = await town.consumer()
    await town.subscribe(actor, application, "echo")
    await town.known(key)
    other = (await town.platform.identity.create_key(actor, application)).key

    async def slowly() -> None:
        await asyncio.sleep(0.2)

    town.counting.pause = slowly
    job = (await hand_in(town, key, 3000, priority="1")).json()["id"]
    [credential] = [one for one in await town.platform.identity.keys(actor, application) if one.last_four == key[-4:]]
    await town.platform.identity.revoke_key(actor, credential.id)
    await town.known(other)
    done = await town.ended(other, job)
    assert done["status"] == "failed" and "revoked" in done["reason"]


async def test_a_large_file_is_taken_without_being_in_memory_whole(town: Town, key: str) -> None:
    async def lines() -> AsyncIterator[bytes]:
        for n in range(10_000):
            yield b'{"n":%d,"pad":"%b"}\n' % (n, b"x" * 2000)

    answer = await town.client.post(
        "/v1/jobs",
        params={"service": "acme/echo"},
        content=lines(),  # 20 MB, chunked
        headers={**bearer(key), "Content-Type": "application/jsonl"},
    )
    assert answer.status_code == 202 and answer.json()["items"]["total"] == 10_000
    await town.client.post(f"/v1/jobs/{answer.json()['id']}/cancel", headers=bearer(key))


async def test_what_is_over_is_purged_with_its_results_and_its_key(town: Town, key: str) -> None:
    from haat.infra.jobs import RunningJob
    from haat.jobs.running import sweep

    job = (await hand_in(town, key, 2)).json()["id"]
    await town.ended(key, job)
    tick = RunningJob(1, "caller_jobs.sweep", {}, 1, town.platform.db)
    await sweep(town.platform, tick)
    assert (await town.client.get(f"/v1/jobs/{job}", headers=bearer(key))).status_code == 200
    await town.rows(
        "UPDATE caller_jobs SET ended_at = now() - interval '31 days' WHERE id = %s RETURNING id", UUID(job)
    )
    await sweep(town.platform, tick)
    assert (await town.client.get(f"/v1/jobs/{job}", headers=bearer(key))).status_code == 404
    assert await town.rows("SELECT FROM caller_job_items") == []
    assert await town.rows("SELECT FROM credentials WHERE scopes @> '{job}'") == []
