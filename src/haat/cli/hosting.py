"""The tour's second half: a provider without a server brings a model, rolls versions out, and runs a long job.

All of it goes over HTTP, but for the two processes that are killed in the middle of the job: those are killed by
their id, as an accident would.
"""

from __future__ import annotations

import base64
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from haat.cli.hosting_job import LongJob
from haat.cli.hosting_result import HostingResult
from haat.cli.people import TourFailed
from haat.cli.rolling import Traffic, roll_out_a_bad_one, roll_out_a_good_one
from haat.cli.sale import Result
from haat.models.bundle import load_signing_key, make_bundle

if TYPE_CHECKING:
    from haat.cli.tour import Tour

MODEL = "akshara-counter"
LISTING = f"setu/{MODEL}"
PLAN = "workshop"
FOLDER = Path(__file__).parent / "tour_model"
_CALLS = 600


class Hosting:
    """Takes a tour on from its sale."""

    def __init__(self, tour: Tour, data_dir: Path) -> None:
        self._tour, self._data_dir = tour, data_dir
        self._provider, self._developer, self._gateway = tour.provider, tour.developer, tour.gateway
        self._service = ""

    async def run(self) -> HostingResult:
        """Publish, roll out, work off a job, and bill it; raise TourFailed at the first step that goes wrong."""
        result, step, say = HostingResult(), self._tour.step, self._tour.say
        first = await self._next_version()
        names = [f"{first + number}.0.0" for number in range(3)]
        await step(
            "A provider without a server publishes a model, as a signed file",
            lambda: self._publish("first", names[0], result),
        )
        say(f"{LISTING} {names[0]} had answered its sample call after {result.accepted_ms / 1000:.1f} s")
        key = await step("The developer subscribes to it", self._subscribe)
        traffic = Traffic(self._gateway, LISTING, key)
        await step(f"{_CALLS} calls of it, gathered to batches", lambda: self._call(traffic, result))
        say(f"up to {result.largest_batch} a batch, {result.mean_batch:.1f} on average")
        say(f"answered in {result.p50_ms:.0f} ms (median), {result.p95_ms:.0f} ms (95th percentile)")
        await step(f"Version {names[1]} is published beside it", lambda: self._publish("second", names[1], result))
        await roll_out_a_good_one(self._tour, traffic, self._service, names[1], result)
        await step(
            f"Version {names[2]} is published, with a mistake its sample call doesn't show",
            lambda: self._publish("third", names[2], result),
        )
        await roll_out_a_bad_one(self._tour, traffic, self._service, names[2], result)
        job = LongJob(self._tour, self._data_dir, LISTING, key)
        await job.run(result)
        await step("Each item is metered once, and billed once", lambda: self._settle(job, result))
        say(f"{result.usage_events:,} usage events, {result.metered_characters:,} characters, as many as were sent")
        if result.repeated:
            say(f"{result.repeated} calls the killed worker was at were not made again: their answers had been kept")
        return result

    async def _next_version(self) -> int:
        """Return a number that no version has yet; end what a tour that was stopped has left under way."""
        models = await self._provider.ask("GET", "/models")
        present = next((model for model in models if model["name"] == MODEL), None)
        if present is None:
            return 1
        service = next((one["service_id"] for one in present["versions"] if one["service_id"]), None)
        for rollout in await self._provider.ask("GET", f"/services/{service}/rollouts") if service else ():
            if rollout["status"] in ("running", "paused"):
                await self._provider.ask("POST", f"/rollouts/{rollout['id']}/rollback", {})
        return 1 + max(int(one["version"].partition(".")[0]) for one in present["versions"])

    # --- the provider ---------------------------------------------------------------------------

    async def _publish(self, source: str, version: str, result: HostingResult) -> None:
        """Write a model's folder, make a signed bundle of it, send it, and have it put on the shelf."""
        key = load_signing_key(self._data_dir / "setu" / "model.key")
        public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
        if not any(known["name"] == "setu" for known in await self._provider.ask("GET", "/models/keys")):
            await self._provider.ask("POST", "/models/keys", {"public_key": public, "name": "setu"})
        with tempfile.TemporaryDirectory() as place:
            folder, bundle = Path(place) / MODEL, Path(place) / f"{MODEL}-{version}.haatmodel"
            folder.mkdir()
            shutil.copyfile(FOLDER / f"{source}.py", folder / "model.py")
            manifest = (FOLDER / "haat-model.yaml").read_text(encoding="utf-8").replace("VERSION", version)
            (folder / "haat-model.yaml").write_text(manifest, encoding="utf-8")
            make_bundle(folder, bundle, key)
            sent = await self._provider.send("/models", bundle.read_bytes())
        began = time.perf_counter()
        done = await self._provider.ask(
            "POST", f"/models/{sent['model_id']}/versions/{version}/publish", default=source == "first"
        )
        if done["listing"] != LISTING or not all(step["ok"] for step in done["steps"]):
            raise TourFailed(f"{version} was not published as it must be: {done}")
        if source == "first":
            result.version = version
            result.accepted_ms = (time.perf_counter() - began) * 1000
            self._service = done["version"]["service_id"]

    # --- the developer --------------------------------------------------------------------------

    async def _subscribe(self) -> str:
        """Return a key on a plan that the provider has made for it."""
        plans = await self._developer.ask("GET", "/plans", service_id=self._service)
        if not any(plan["code"] == PLAN for plan in plans):
            await self._provider.ask(
                "POST", f"/services/{self._service}/plans", {"code": PLAN, "name": "Workshop", "per_minute": 100_000}
            )
        application = await self._developer.ask("POST", "/applications", {"name": f"workshop {time.time():.0f}"})
        subscription = {"application_id": application["id"], "service_id": self._service, "plan": PLAN}
        await self._developer.ask("POST", "/subscriptions", subscription)
        self._tour.paths[self._service] = LISTING
        issued = await self._developer.ask("POST", f"/applications/{application['id']}/keys", {"name": "workshop"})
        await self._tour.catch_up()
        key: str = issued["key"]
        return key

    async def _call(self, traffic: Traffic, result: HostingResult) -> None:
        async with traffic.flowing():
            await traffic.until(lambda: traffic.calls >= _CALLS)
        if traffic.failed:
            raise TourFailed(f"{traffic.failed} of {traffic.calls} calls of {LISTING} failed: {traffic.last_failure}")
        result.largest_batch, result.mean_batch = max(traffic.batches), statistics.mean(traffic.batches)
        result.p50_ms = statistics.median(traffic.milliseconds)
        result.p95_ms = statistics.quantiles(traffic.milliseconds, n=20)[-1]

    async def _settle(self, job: LongJob, result: HostingResult) -> None:
        await job.meter(result)
        invoiced = Result()
        await self._tour.bill(invoiced)
        result.billed_calls, result.net = invoiced.billed_calls, invoiced.net
        result.shared_out = invoiced.settlement + invoiced.platform
