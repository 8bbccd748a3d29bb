"""OpenAI's files and batches by its own client, ULCA's asynchronous form, and the webhooks that tell of the end."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from standardwebhooks import Webhook

from gateway.rig import Provider, Request, answer
from haat.kernel.errors import AddressForbidden, HaatError
from haat.kernel.permissions import Actor
from jobs.caller_rig import Town, bearer, open_town
from jobs.job_rig import until


@pytest.fixture
async def town(cluster: Any, database: Any) -> AsyncIterator[Town]:
    async with open_town(cluster, database) as made:
        await made.service(
            "embed", version={"dialect": "openai", "endpoint": f"http://127.0.0.1:{made.provider.port}/v1"}
        )
        await made.service("echo")
        await made.plan("large", per_minute=1_000_000, max_concurrent=1000)
        yield made


@pytest.fixture
async def who(town: Town) -> tuple[Actor, UUID, str]:
    actor, application, key = await town.consumer()
    for slug in ("embed", "echo"):
        await town.subscribe(actor, application, slug)
    await town.known(key)
    return actor, application, key


def client_of(town: Town, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(api_key=key, base_url=f"{town.client.base_url}/v1", max_retries=0)


def lines(*inputs: str, model: str = "acme/embed") -> io.BytesIO:
    rows = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/embeddings", "body": {"model": model, "input": text}}
        for n, text in enumerate(inputs)
    ]
    file = io.BytesIO("\n".join(map(json.dumps, rows)).encode())
    file.name = "requests.jsonl"
    return file


@pytest.mark.speaks("openai files and batches", client="openai (PyPI)")
async def test_a_batch_by_openais_own_client(town: Town, who: Any) -> None:
    town.counting.status = lambda n: 400 if n == "bad" else 200
    async with client_of(town, who[2]) as client:
        file = await client.files.create(file=lines("a", "bad", "c"), purpose="batch")
        assert (file.purpose, file.filename, file.status) == ("batch", "requests.jsonl", "processed")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h", metadata={"run": "1"}
        )
        assert batch.status == "in_progress" and batch.request_counts is not None
        assert batch.request_counts.total == 3

        async def done() -> Any:
            found = await client.batches.retrieve(batch.id)
            return found if found.status == "completed" else None

        found = await until(done)
        counts = found.request_counts
        assert (counts.completed, counts.failed, counts.total) == (2, 1, 3) and found.metadata == {"run": "1"}
        output = [json.loads(line) for line in (await client.files.content(found.output_file_id)).text.splitlines()]
        assert [one["custom_id"] for one in output] == ["r0", "r2"]
        assert output[0]["response"]["status_code"] == 200
        assert output[0]["response"]["body"]["data"][0]["embedding"]
        errors = [json.loads(line) for line in (await client.files.content(found.error_file_id)).text.splitlines()]
        assert [(one["custom_id"], one["response"]["status_code"]) for one in errors] == [("r1", 400)]
        assert [one.id async for one in await client.batches.list(limit=1)] == [batch.id]
        assert {one.id async for one in await client.files.list()} == {
            file.id,
            found.output_file_id,
            found.error_file_id,
        }
        assert (await client.files.retrieve(file.id)).bytes == file.bytes
        assert (await client.files.delete(file.id)).deleted
        with pytest.raises(NotFoundError):
            await client.files.retrieve(file.id)


async def test_files_that_are_no_batches_are_refused_by_line(town: Town, who: Any) -> None:
    async with client_of(town, who[2]) as client:
        good = await client.files.create(file=lines("a"), purpose="batch")
        for content, word in (
            (b"not json", "line 1"),
            (lines("a").getvalue() + b"\n" + lines("b").getvalue(), "line 2"),
            (b'{"custom_id":"x","method":"GET","url":"/v1/embeddings","body":{}}', "line 1"),
            (b'{"custom_id":"x","method":"POST","url":"/v1/other","body":{}}', "line 1"),
        ):
            file = await client.files.create(file=("f.jsonl", content), purpose="batch")
            with pytest.raises(BadRequestError) as caught:
                await client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
            assert caught.value.param == word
        with pytest.raises(BadRequestError) as caught:
            await client.batches.create(
                input_file_id="file-00000000000000000000000000000000",
                endpoint="/v1/embeddings",
                completion_window="24h",
            )
        assert caught.value.param == "input_file_id"
        _, _, other = await town.consumer("stranger@example.in")
        await town.known(other)
        async with client_of(town, other) as stranger:
            with pytest.raises(NotFoundError):
                await stranger.files.content(good.id)
            assert [one async for one in await stranger.files.list()] == []


@pytest.mark.speaks("ulca polling")
async def test_ulcas_request_is_answered_later_where_it_was_said(town: Town, who: Any) -> None:
    body = {
        "pipelineTasks": [
            {"taskType": "translation", "config": {"language": {"sourceLanguage": "hi", "targetLanguage": "ur"}}}
        ],
        "inputData": {"input": [{"source": "नमस्ते"}]},
        "controlConfig": {"isSyncApi": False},
    }  # fmt: skip
    headers = {"Authorization": who[2]}
    taken = await town.client.post("/services/inference/pipeline", json=body, headers=headers)
    assert taken.status_code == 202, taken.text
    said = taken.json()
    assert said["pollingUrl"].endswith(f"/services/inference/poll/{said['requestId']}")
    assert (await town.ended(who[2], said["requestId"]))["status"] == "completed"
    now = await town.client.post("/services/inference/pipeline", json={**body, "controlConfig": {}}, headers=headers)
    for polled in (
        await town.client.get(said["pollingUrl"], headers=headers),
        await town.client.post("/services/inference/poll", json={"requestId": said["requestId"]}, headers=headers),
    ):
        assert polled.status_code == now.status_code, polled.text
        assert polled.json()["message"] == now.json()["message"], "nobody translates here, and both say so"
    unknown = await town.client.get(f"/services/inference/poll/{UUID(int=0)}", headers=headers)
    assert unknown.status_code == 404 and unknown.json()["message"]


async def hand_in(town: Town, key: str) -> str:
    body = {"service": "acme/echo", "input": {"n": 1}}
    answered = await town.client.post("/v1/jobs", json=body, headers=bearer(key))
    return str(answered.json()["id"])


async def test_endpoints_are_told_signed_again_after_failures_and_on_demand(town: Town, who: Any) -> None:
    actor, application, key = who
    statuses, got = [500, 200, 200], list[Request]()
    listener = await Provider().start()

    async def take(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        got.append(request)
        writer.write(answer(statuses.pop(0)))
        return True

    listener.behaviour = take
    shown = await town.platform.webhooks.add(actor, application, f"http://127.0.0.1:{listener.port}/hook")
    assert shown.secret is not None and shown.secret.startswith("whsec_")
    kept = json.dumps(await town.rows("SELECT * FROM webhook_endpoints"), default=str)
    assert shown.secret not in kept
    job = await hand_in(town, key)

    async def log() -> Any:
        page = await town.platform.webhooks.deliveries(actor, job=UUID(job))
        return page.items[0] if page.items and page.items[0].attempts else None

    first = await until(log)
    assert (first.status, first.last_status) == ("waiting", 500)

    async def delivered() -> bool:
        return (await log()).status == "delivered"

    await until(delivered, 20)
    second = await town.platform.webhooks.rotate(actor, shown.endpoint.id)
    await town.platform.webhooks.resend(actor, first.id)

    async def thrice() -> bool:
        return len(got) == 3

    await until(thrice)
    assert second.secret is not None
    for request, secrets in zip(got, ([shown.secret], [shown.secret], [shown.secret, second.secret]), strict=True):
        for secret in secrets:
            told = Webhook(secret).verify(request.body, dict(request.headers))
            assert told["type"] == "job.completed" and told["data"]["id"] == job
    assert len({request.header("webhook-id")[0] for request in got}) == 1
    stranger, _, _ = await town.consumer("stranger@example.in")
    with pytest.raises(HaatError):
        await town.platform.webhooks.resend(stranger, first.id)
    await listener.stop()


async def test_an_endpoint_that_is_gone_is_told_no_more(town: Town, who: Any) -> None:
    actor, application, key = who
    listener = await Provider().start()
    listener.behaviour = answer(410)
    await town.platform.webhooks.add(actor, application, f"http://127.0.0.1:{listener.port}/")
    await hand_in(town, key)

    async def disabled() -> bool:
        return (await town.platform.webhooks.endpoints(actor))[0].disabled_at is not None

    await until(disabled)
    assert (await town.platform.webhooks.deliveries(actor)).items[0].status == "failed"
    await listener.stop()


async def test_forbidden_addresses_are_refused_and_looked_at_again_at_each_attempt(town: Town, who: Any) -> None:
    actor, application, key = who
    webhooks = town.platform.webhooks
    for url in ("http://10.0.0.1/", "http://169.254.169.254/latest", "ftp://8.8.8.8/", "http://u:p@8.8.8.8/",
                "http://8.8.8.8:22/", "http://[::1]/", "http://100.64.0.1/", "not an address"):  # fmt: skip
        with pytest.raises(AddressForbidden):
            await webhooks.add(actor, application, url)
    listener = await Provider().start()
    await webhooks.add(actor, application, f"http://127.0.0.1:{listener.port}/")
    await town.rows(
        "UPDATE webhook_endpoints SET url = 'http://10.0.0.1/' RETURNING id"
    )  # its name leads elsewhere now
    await hand_in(town, key)

    async def refused() -> Any:
        found = (await webhooks.deliveries(actor)).items
        return found[0] if found and found[0].attempts else None

    found = await until(refused)
    assert found.last_status is None and "not a public address" in found.last_error
    assert listener.requests == []
    await listener.stop()


async def test_the_documented_program_does_what_the_page_says(town: Town, who: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
    [(program, promised)] = re.findall(r"```python example\n(.*?)```\n```text\n(.*?)```", page, re.DOTALL)
    program = program.replace("akshara/transliterate", "acme/echo")  # who sells it here
    environment = {**os.environ, "HAAT_BASE_URL": str(town.client.base_url), "HAAT_API_KEY": who[2]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert out.decode() == promised, err.decode()
