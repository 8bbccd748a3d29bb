"""From a folder to the shelf: keys, bundles, publishing, and what the models process makes of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from frontage import app_on
from haat.app import build_platform
from haat.infra.keyring import Keyring
from haat.infra.net import hosted_networks
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM, Actor
from haat.models import deployments
from haat.models.bundle import key_id, make_bundle
from haat.models.credentials import Credentials, models_token, provider_token
from haat.models.deployments import Follower, bundle_of, deployed_models, files_of
from haat.models.door import ModelDoor
from haat.models.engines.local import LocalEngine
from haat.registry.jobs import place
from haat.settings import Settings
from market import Market
from models.runtimes.folders import from_template
from office import Control, PostBox

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY_ID = key_id(KEY.public_key())
KEY_BODY = {"public_key": base64.b64encode(KEY.public_key().public_bytes_raw()).decode(), "name": "laptop"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
async def control(database: Any, clock: SetClock, keyring: Keyring, tmp_path: Path) -> AsyncIterator[Control]:
    """The control process of a platform that has opened no network to anybody."""
    settings = Settings(data_dir=tmp_path / "data", models_port=free_port())
    platform = build_platform(settings, database.app, database.service, keyring, clock, PostBox())
    platform.identity._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    p = platform
    market = Market(database.app, clock, keyring, p.identity, p.partners, p.catalog, p.discovery, p.subscriptions)
    app = app_on(platform)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://haat.example.in", timeout=60) as client:
        yield Control(app, platform, market, client)


@contextlib.asynccontextmanager
async def models_process(control: Control) -> AsyncIterator[Follower]:
    """Serve what is deployed, to who has the credential, as the models process does."""
    settings = control.platform.settings
    engine = LocalEngine(home=settings.data_dir / "models" / "work", networks=settings.allowed_networks)
    follower = Follower(settings, engine)

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    door = ModelDoor(engine, Credentials(control.platform.keyring).opens, nothing, str)
    config = uvicorn.Config(door, host="127.0.0.1", port=settings.models_port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    await engine.start()
    await follower.start()
    running = asyncio.create_task(server._serve())
    try:
        yield follower
    finally:
        server.should_exit = True
        await running
        await follower.stop()
        await engine.stop()


def packed(tmp_path: Path, *, key: Ed25519PrivateKey = KEY, **changes: str) -> bytes:
    """Return a bundle of the Python template with parts of its file replaced."""
    folder = from_template(tmp_path / f"f{len(list(tmp_path.iterdir()))}", "python")
    path = folder / "haat-model.yaml"
    for name, value in changes.items():
        lines = [f"{name}: {value}" if line.startswith(f"{name}:") else line for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
    target = tmp_path / "made.haatmodel"
    make_bundle(folder, target, key)
    return target.read_bytes()


async def provider(control: Control, slug: str = "bhasha") -> Actor:
    actor = await control.market.provider(slug)
    assert (await control.ask("POST", "/models/keys", KEY_BODY, actor=actor)).status_code == 201
    return actor


async def upload(control: Control, actor: Actor, content: bytes) -> httpx.Response:
    return await control.ask("POST", "/models", actor=actor, content=content)


def code_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    code: str = answer.json()["code"]
    return code


async def test_a_model_comes_from_a_bundle_to_its_listing(control: Control, tmp_path: Path) -> None:
    actor = await provider(control)
    sent = await upload(control, actor, packed(tmp_path))
    assert sent.status_code == 201, sent.text
    version = sent.json()
    assert (version["stage"], version["signed_by"], version["version"]) == ("uploaded", KEY_ID, "1.0.0")
    data_dir = control.platform.settings.data_dir
    assert (files_of(data_dir, version["digest"]) / "model.py").is_file()
    assert bundle_of(data_dir, version["digest"]).is_file()
    assert list((data_dir / "models" / "incoming").iterdir()) == []
    way = f"/models/{version['model_id']}/versions/1.0.0"
    async with models_process(control) as follower:
        done = await control.ask("POST", f"{way}/publish", actor=actor)
        assert done.status_code == 200, done.text
        assert done.json()["listing"] == "bhasha/words"
        assert all(step["ok"] for step in done.json()["steps"])
        deployments.write_states(data_dir, follower.states())
        [model] = (await control.ask("GET", "/models", actor=actor)).json()
        assert (model["versions"][0]["stage"], model["versions"][0]["health"]) == ("published", "ready")
        again = await control.ask("POST", f"{way}/publish", actor=actor)
        assert again.status_code == 200
        assert again.json()["steps"] == []
    listing = (await control.ask("GET", "/listings/bhasha/words")).json()
    assert listing["listing"]["status"] == "published"
    assert listing["prices"][0]["unit_price"].rstrip("0") == "0.0001"
    [candidate] = (await control.ask("GET", "/models/matches?category=nlp&source=hi", actor=actor)).json()
    assert candidate["path"] == "bhasha/words"
    assert code_of(await control.ask("POST", f"{way}/retire", actor=actor), 409) == "CONFLICT"
    events = await control.market.events(f"model/{version['model_id']}")
    assert [event.type for event in events][:3] == ["model.uploaded", "model.deployed", "model.published"]


async def test_a_version_that_fails_its_call_runs_no_longer_and_a_mended_one_is_listed(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haat.registry.listing.WARM_UP_SECONDS", 2)
    actor = await provider(control)
    version = (await upload(control, actor, packed(tmp_path, entry="model:Nothing"))).json()
    way = f"/models/{version['model_id']}/versions"
    async with models_process(control) as follower:
        refused = await control.ask("POST", f"{way}/1.0.0/publish", actor=actor)
        assert code_of(refused, 422) == "ACCEPTANCE_FAILED"
        assert refused.json()["steps"][-1]["ok"] is False
        assert deployed_models(control.platform.settings) == []
        await follower.look()
        assert follower.states() == {}
        assert (await upload(control, actor, packed(tmp_path, version="2.0.0"))).status_code == 201
        assert (await control.ask("POST", f"{way}/2.0.0/publish", actor=actor)).status_code == 200
    [model] = (await control.ask("GET", "/models", actor=actor)).json()
    assert [one["stage"] for one in model["versions"]] == ["uploaded", "published"]
    assert (await control.ask("POST", f"{way}/1.0.0/retire", actor=actor)).json()["stage"] == "retired"
    assert code_of(await control.ask("POST", f"{way}/1.0.0/publish", actor=actor), 409) == "CONFLICT"


async def test_a_version_is_published_beside_the_default_one_for_a_rollout(control: Control, tmp_path: Path) -> None:
    actor = await provider(control)
    model = (await upload(control, actor, packed(tmp_path))).json()["model_id"]
    async with models_process(control):
        first = await control.ask("POST", f"/models/{model}/versions/1.0.0/publish?default=false", actor=actor)
        assert first.status_code == 200, first.text  # the first one is the default version in any case
        service = first.json()["version"]["service_id"]
        for version in ("2.0.0", "3.0.0"):
            assert (await upload(control, actor, packed(tmp_path, version=version))).status_code == 201
            way = f"/models/{model}/versions/{version}/publish?default=false"
            assert (await control.ask("POST", way, actor=actor)).status_code == 200
        assert await default_version(control) == "1.0.0"
        rollout = await control.ask("POST", f"/services/{service}/rollouts", {"candidate": "2.0.0"}, actor=actor)
        assert rollout.status_code == 201, rollout.text
        assert (await control.ask("POST", f"/rollouts/{rollout.json()['id']}/promote", actor=actor)).status_code == 200
        assert await default_version(control) == "2.0.0"
        retired = await control.ask("POST", f"/models/{model}/versions/3.0.0/retire", actor=actor)
        assert retired.json()["stage"] == "retired"


async def default_version(control: Control) -> str:
    versions = (await control.ask("GET", "/listings/bhasha/words")).json()["versions"]
    [name] = [one["version"] for one in versions if one["is_default"]]
    return str(name)


async def test_a_version_is_never_replaced(control: Control, tmp_path: Path) -> None:
    actor = await provider(control)
    first = packed(tmp_path)
    answers = await asyncio.gather(*(upload(control, actor, first) for _ in range(3)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert code_of(await upload(control, actor, packed(tmp_path, memory_mb="300")), 409) == "ALREADY_EXISTS"
    assert code_of(await upload(control, actor, packed(tmp_path, version="2", category="ocr")), 422)


async def test_bundles_are_refused_by_name(control: Control, tmp_path: Path) -> None:
    actor = await provider(control)
    stranger = packed(tmp_path, key=Ed25519PrivateKey.generate())
    assert code_of(await upload(control, actor, stranger), 422) == "BUNDLE_UNSIGNED"
    assert code_of(await upload(control, actor, b"rubbish"), 422) == "BUNDLE_MALFORMED"
    assert code_of(await upload(control, actor, b""), 400) == "INVALID_REQUEST"
    assert (await control.ask("DELETE", f"/models/keys/{KEY_ID}", actor=actor)).status_code == 204
    assert code_of(await upload(control, actor, packed(tmp_path)), 422) == "BUNDLE_UNSIGNED"
    assert code_of(await control.ask("POST", "/models/keys", KEY_BODY, actor=actor), 409) == "ALREADY_EXISTS"
    for wrong in ("", "AAAA", "not base64", "é"):
        body = {"public_key": wrong, "name": "x"}
        assert code_of(await control.ask("POST", "/models/keys", body, actor=actor), 422) == "VALIDATION_FAILED"
    assert list((control.platform.settings.data_dir / "models" / "incoming").iterdir()) == []
    assert not (control.platform.settings.data_dir / "models" / "files").exists()


async def test_a_bundle_that_says_it_is_too_large_is_not_read(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = await provider(control)
    monkeypatch.setattr("haat.control.problems.MOST_BUNDLE_BYTES", 1000)
    assert code_of(await upload(control, actor, bytes(2000)), 413) == "BODY_TOO_LARGE"


async def test_another_tenant_sees_and_changes_nothing(control: Control, tmp_path: Path) -> None:
    actor, other = await provider(control), await provider(control, "other")
    version = (await upload(control, actor, packed(tmp_path))).json()
    model = f"/models/{version['model_id']}"
    assert (await control.ask("GET", "/models", actor=other)).json() == []
    assert code_of(await control.ask("GET", model, actor=other), 404) == "NOT_FOUND"
    for action in ("publish", "retire"):
        answer = await control.ask("POST", f"{model}/versions/1.0.0/{action}", actor=other)
        assert code_of(answer, 404) == "NOT_FOUND"
    assert (await control.ask("DELETE", f"/models/keys/{KEY_ID}", actor=other)).status_code == 204  # its own
    [key] = (await control.ask("GET", "/models/keys", actor=actor)).json()
    assert key["revoked_at"] is None


async def test_a_providers_other_listings_reach_nothing_on_this_machine(control: Control) -> None:
    actor = await provider(control)
    address = control.platform.settings.models_address
    for endpoint in (
        f"{address}/bhasha", f"{address}/other/words%401", f"{address}/bhasha/words%401/x",
        f"{address}/bhasha/../x%401", "http://127.0.0.1:5432/bhasha/words%401",
    ):  # fmt: skip
        assert hosted_networks(endpoint, address, "bhasha") == ()
        body = {
            "slug": "inside", "name": "Inside", "category": "nlp", "price": {"unit_price": "1"},
            "version": {"endpoint": endpoint, "dialect": "http", "sample": {"path": "/"}},
        }  # fmt: skip
        made = await control.ask("POST", "/services", body, actor=actor)
        if made.status_code == 201:
            found = made.json()
            way = f"/services/{found['service_id']}/versions/{found['version_id']}/accept"
            assert code_of(await control.ask("POST", way, actor=actor), 422) == "ACCEPTANCE_FAILED"
            await control.ask("POST", f"/services/{found['service_id']}/retire", actor=actor)
            return


async def test_a_providers_credential_opens_only_its_own_models(keyring: Keyring) -> None:
    opens = Credentials(keyring).opens
    assert opens("bhasha", f"Bearer {provider_token(keyring, 'bhasha')}".encode())
    assert opens("bhasha", f"Bearer {models_token(keyring)}".encode())
    assert not opens("other", f"Bearer {provider_token(keyring, 'bhasha')}".encode())
    assert not opens("bhasha", b"")


async def test_what_a_killed_process_left_undone_is_done_by_its_event(control: Control, tmp_path: Path) -> None:
    actor = await provider(control)
    version = (await upload(control, actor, packed(tmp_path))).json()
    settings = control.platform.settings
    async with models_process(control):
        way = f"/models/{version['model_id']}/versions/1.0.0/publish"
        assert (await control.ask("POST", way, actor=actor)).status_code == 200
    deployments.withdraw(settings.data_dir, "bhasha/words@1.0.0")
    [*_, event] = await control.market.events(f"model/{version['model_id']}")
    for _ in range(2):
        await place(control.platform, event)
        assert [model.key for model in deployed_models(settings)] == ["bhasha/words@1.0.0"]


async def test_models_that_can_not_be_read_leave_the_others_alone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    folder = files_of(tmp_path, "d")
    folder.parent.mkdir(parents=True)
    from_template(tmp_path / "t", "python").rename(folder)
    from haat.models.manifest_file import read_manifest

    deployments.deploy(tmp_path, "a/words@1.0.0", "d", read_manifest(folder))
    deployments.deploy(tmp_path, "a/gone@1", "no-files", read_manifest(folder))
    (tmp_path / "models" / "deployed" / "b.x@1.json").write_text("{")
    assert [model.key for model in deployed_models(settings)] == ["a/words@1.0.0"]


async def test_the_platform_may_place_every_model(control: Control, tmp_path: Path) -> None:
    actor = await provider(control)
    version = (await upload(control, actor, packed(tmp_path))).json()
    from uuid import UUID

    await control.platform.registry.place_all(PLATFORM, UUID(version["model_id"]))
    assert deployed_models(control.platform.settings) == []
