"""The tour: a sale from registration to settlement, made over HTTP as anybody would make it.

Nothing here reaches into the platform: a provider, an operator and a developer talk to the control
API and the gateway, and at the end the three look at what was sold. Then the provider brings a model.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from haat.cli.hosting import Hosting
from haat.cli.hosting_result import HostingResult
from haat.cli.people import Cast, Person, TourFailed, checked
from haat.cli.receipts import Receipts, fetch_receipts, tell
from haat.cli.sale import Result, Tally, print_sale
from haat.cli.sentences import TourCall, tour_calls
from haat.cli.setu import MAX_CHARACTERS
from haat.kernel.events import Position
from haat.settings import Settings

CONCURRENT_CALLS = 12
CROWD = 30  # calls on a plan of ten a minute: twenty of them too many
SETU = "setu/text-statistics"
CROWDED = "akshara/detect-language"
_WAIT_SECONDS = 60.0


class Tour:
    """The three people, and what they do one after another."""

    def __init__(
        self,
        settings: Settings,
        cast: Cast,
        console: Console,
        setu_url: str,
        setu_credential: str,
    ) -> None:
        self._settings = settings
        self._control = httpx.AsyncClient(base_url=settings.portal_address, timeout=60, trust_env=False)
        self.gateway = httpx.AsyncClient(
            base_url=settings.gateway_address,
            timeout=60,
            trust_env=False,
            limits=httpx.Limits(max_connections=CONCURRENT_CALLS, max_keepalive_connections=CONCURRENT_CALLS),
        )
        self.operator = Person(self._control, cast.operator)
        self.provider = Person(self._control, cast.provider)
        self.developer = Person(self._control, cast.developer)
        self.console = console
        self._setu_url = setu_url
        self._setu_credential = setu_credential
        self.portal = settings.portal_address
        self.paths: dict[str, str] = {}
        self.issued: list[dict[str, Any]] = []
        """The developer's invoices, as the tour had them issued."""
        self.settled: list[str] = []
        """The provider's settlements that came of them."""

    async def run(self) -> tuple[Result, HostingResult, Receipts]:
        """Do it all; raise TourFailed at the first step that goes wrong."""
        began = time.perf_counter()
        result = Result()
        async with self._control, self.gateway:
            await self.operator.sign_in()
            await self.step("A provider registers, the operator approves, the service is accepted", self._list_setu)
            await self.step("A developer signs up and finds what is needed, in any script", self._find)
            keys = await self.step("The developer subscribes and gets keys", self._subscribe)
            await self._call(keys, result)
            await self.step("Each call is metered once", lambda: self._meter(result))
            await self.step("The month so far is invoiced, and shared with the providers", lambda: self.bill(result))
            print_sale(self.console, result)
            hosting = await Hosting(self, self._settings.data_dir).run()
            receipts = await self.step(
                "The developer has the invoice as PDF, the provider a statement; each line opens its calls",
                lambda: fetch_receipts(self, self._settings.data_dir / "demo"),
            )
            tell(self, receipts)
        result.seconds = time.perf_counter() - began
        return result, hosting, receipts

    def say(self, sentence: str) -> None:
        """Print what is to be told about a step."""
        self.console.print(f"  {sentence}", highlight=False)

    async def step(self, what: str, action: Callable[[], Awaitable[Any]]) -> Any:
        """Return what an action returns, saying what it does while it does it."""
        with self.console.status(f"{what} …"):
            value = await action()
        self.console.print(f"[green]✓[/green] {what}")
        return value

    # --- the provider and the operator ----------------------------------------------------------

    async def _list_setu(self) -> None:
        await self.provider.sign_in(name="Meera Setu", organisation="Setu Text Tools", kind="provider", state_code="27")
        partner = await self._registered_partner()
        if partner["status"] == "pending":
            waiting = await self.operator.ask("GET", "/partners", status="pending")
            found = next(waiter for waiter in waiting if waiter["slug"] == "setu")
            await self.operator.ask("POST", f"/partners/{found['org_id']}/approve")
            # It runs on this very machine, which providers may do only where the operator allows it.
            await self.operator.ask("PUT", f"/partners/{found['org_id']}/networks", {"networks": ["127.0.0.0/8"]})
        own = await self.provider.ask("GET", "/services")
        if not own:
            made = await self.provider.ask("POST", "/services", self._setu_draft())
            service, version = made["service_id"], made["version_id"]
            await self.provider.ask("POST", f"/services/{service}/versions/{version}/accept")
            await self.provider.ask("POST", f"/services/{service}/publish")
            return
        listing = await self.provider.ask("GET", f"/listings/{SETU}")
        service, version = listing["listing"]["id"], listing["versions"][0]["id"]
        await self.provider.ask("PUT", f"/services/{service}/versions/{version}/endpoint", {"endpoint": self._setu_url})

    async def _registered_partner(self) -> Any:
        response = await self.provider.try_("GET", "/partner")
        if response.status_code != 404:
            return checked(response)
        return await self.provider.ask(
            "POST",
            "/partner",
            {
                "slug": "setu",
                "company_name": "Setu Text Tools",
                "email": "setu@haat.localhost",
                "contact_person": "Meera Setu",
                "business_type": "proprietorship",
            },
        )

    def _setu_draft(self) -> dict[str, Any]:
        return {
            "slug": "text-statistics",
            "name": "Text statistics",
            "summary": "Counts graphemes, words and scripts of a text",
            "description": "What a text is made of, counted as a reader sees it: graphemes rather than code points. "
            "An ordinary HTTP API, sold as it is.",
            "category": "nlp",
            "unit": "graphemes",
            "credential": self._setu_credential,
            "price": {"unit_price": "0.0004", "free_units": "500"},
            "version": {
                "version": "1.0",
                "endpoint": self._setu_url,
                "dialect": "http",
                "health_path": "/health",
                "sample": {"method": "POST", "path": "/v1/statistics", "body": {"text": "हाट में आपका स्वागत है।"}},
                "max_units": str(MAX_CHARACTERS),
                "timeout_ms": 5000,
            },
        }

    # --- the developer --------------------------------------------------------------------------

    async def _find(self) -> None:
        await self.developer.sign_in(
            name="Asha Rao", organisation="Asha's Apps", address="12 Market Road, Bengaluru 560001", state_code="29"
        )
        for query in ("translit", "हिन्दी", "اردو"):
            page = await self.developer.ask("GET", "/listings", q=query)
            if not page["items"]:
                raise TourFailed(f"The search for {query} found nothing.")

    async def _subscribe(self) -> dict[str, str]:
        """Return a key for the ordinary calls and one on the free plan for the crowd."""
        stamp = f"{time.time():.0f}"
        calls = list(dict.fromkeys([*(call.service for call in tour_calls()), SETU]))
        keys = {}
        for name, plan, paths in (("tour", "enterprise", calls), ("crowd", "free", [CROWDED])):
            application = await self.developer.ask("POST", "/applications", {"name": f"{name} {stamp}"})
            for path in paths:
                service = (await self.developer.ask("GET", f"/listings/{path}"))["listing"]["id"]
                self.paths[service] = path
                subscription = {"application_id": application["id"], "service_id": service, "plan": plan}
                await self.developer.ask("POST", "/subscriptions", subscription)
            issued = await self.developer.ask("POST", f"/applications/{application['id']}/keys", {"name": name})
            keys[name] = issued["key"]
        return keys

    async def _call(self, keys: dict[str, str], result: Result) -> None:
        self._metered_before = await self._metered()
        calls = [*tour_calls()]
        texts = [item["text"] for call in calls for item in call.body.get("input", []) if "text" in item]
        setu = [TourCall(SETU, {"text": text}, path="/v1/statistics") for text in texts[:60]]
        crowd = [call for call in calls if call.service == CROWDED][:1] * CROWD
        await self.catch_up()
        columns = (
            TextColumn("  [bold]Calling[/bold] {task.description:<28}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            for what, key, batch in (
                ("the built-in services", keys["tour"], calls),
                ("a provider's own API", keys["tour"], setu),
                ("more than a plan allows", keys["crowd"], crowd),
            ):
                await self._make(key, batch, result, progress, progress.add_task(what, total=len(batch), rate=""))

    async def catch_up(self) -> None:
        """Wait until the gateway has read the newest key from the change feed: well under a second."""
        newest = (await self._control.get("/health")).json()["position"]
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            health = (await self.gateway.get("/health")).json()
            if Position.parse(health["position"]) >= Position.parse(newest):
                return
            if time.monotonic() > deadline:
                raise TourFailed("The gateway does not follow the change feed.")
            await asyncio.sleep(0.02)

    async def _make(
        self, key: str, batch: Sequence[TourCall], result: Result, progress: Progress, task: TaskID
    ) -> None:
        """Make the calls, some at once, and count what comes back."""
        began, done, waiting = time.perf_counter(), itertools.count(1), iter(batch)

        async def caller() -> None:
            for call in waiting:
                response = await self.gateway.post(
                    f"/v1/services/{call.service}{call.path}",
                    json=call.body,
                    headers={"Authorization": f"Bearer {key}", "X-Haat-Tags": "tour", "X-Haat-User": "asha"},
                )
                result.tallies.setdefault(call.service, Tally()).add(response)
                number = next(done)
                rate = f"{number / (time.perf_counter() - began):.0f} calls/s"
                progress.update(task, completed=number, rate=rate)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(CONCURRENT_CALLS, len(batch))):
                group.create_task(caller())

    # --- what became of it ------------------------------------------------------------------------

    async def _metered(self) -> int:
        """Return how many of the developer's calls are in the usage store this month."""
        services = await self.developer.ask("GET", "/usage")
        return sum(service["counts"]["calls"] for service in services)

    async def _meter(self, result: Result) -> None:
        """Wait for the shipper; once all calls are there, look again: none may come twice."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            if await self._metered() - self._metered_before >= result.calls or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        result.usage_events = await self._metered() - self._metered_before

    async def bill(self, result: Result) -> None:
        """Invoice what is metered so far and share it out; what was invoiced before stays as it is."""
        draft = await self.developer.ask("GET", "/invoices/preview", period=await self._month())
        period = draft["period"]
        earlier = {
            settled["id"] for settled in await self.operator.ask("POST", "/settlements/runs", {"period": period})
        }
        run = await self.operator.ask("POST", "/invoices/runs", {"period": period, "until": draft["until"]})
        if run["failed"]:
            raise TourFailed(f"Not everybody could be invoiced: {run['failed']}")
        mine = (await self.developer.ask("GET", "/me"))["org_id"]
        for invoice in run["issued"]:
            result.net += Decimal(invoice["net"])
            result.tax += Decimal(invoice["tax"])
            lines = await self._lines(invoice, mine)
            result.billed_calls += sum(line["calls"] for line in lines)
            if invoice["org_id"] == mine:
                self.issued.append(invoice)
                result.serials.append(invoice["serial"])
                for line in lines:
                    service = self.paths[line["service_id"]]
                    result.charges[service] = result.charges.get(service, Decimal(0)) + Decimal(line["taxable"])
        provider = (await self.provider.ask("GET", "/me"))["org_id"]
        for settled in await self.operator.ask("POST", "/settlements/runs", {"period": period}):
            if settled["id"] not in earlier:
                if settled["org_id"] == provider:
                    self.settled.append(settled["id"])
                result.settlement += Decimal(settled["provider"])
                result.platform += Decimal(settled["platform"])

    async def _lines(self, invoice: dict[str, Any], mine: str) -> Any:
        asker = self.developer if invoice["org_id"] == mine else self.operator
        return await asker.ask("GET", f"/invoices/{invoice['id']}/lines")

    async def _month(self) -> str:
        return str((await self.developer.ask("GET", "/cost"))["period"])
