"""What visitors meet: how long pages take with many at once, what they weigh, and a phone on a slow network.

The control process runs as an installation runs it, on loopback. A visitor reads a page for some seconds, then asks for
the next one. A page's time is from its request to its last byte; whoever measures runs on the same cores.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil

from bench.catalog_market import LANGUAGES, Catalog
from bench.measure import cpu, percentile
from bench.processes import LOOPBACK, free_port, running, say
from haat.app import open_platform

PASSWORD = "a street with many stalls"  # noqa: S105 - of a database that is thrown away
START_SECONDS = 120.0
LEAST_PAUSE, MOST_PAUSE = 1.0, 3.0
CHROMIUM = Path("/usr/bin/chromium")
RTT_MS, BYTES_A_SECOND, SLOWER = 400, 400_000 // 8, 4
"""Slow 3G as browsers' own tools have it, and a processor of a quarter of this one's speed."""
_LINKED = re.compile(r'(?:href|src)="(/static/[^"]+)"')


@dataclass(frozen=True, slots=True)
class Page:
    """One kind of page with everybody on the street. Sizes are as sent, without what it links to."""

    name: str
    asked: int
    p50_ms: float
    p95_ms: float
    most_ms: float
    bytes_sent: int
    bytes_plain: int


@dataclass(frozen=True, slots=True)
class SlowPhone:
    """The landing page on a slow phone, with an empty cache: the median of some loads."""

    loads: int
    first_paint_ms: float
    usable_ms: float
    bytes_sent: int


@dataclass(frozen=True, slots=True)
class Street:
    """``first_visit_bytes`` are the landing page's with all that it links to; ``cpu_ms`` is the control process's for
    a page."""

    visitors: int
    seconds: float
    pages_a_second: float
    failed: int
    cpu_ms: float
    rss_mb: float
    pages: tuple[Page, ...]
    first_visit_bytes: int
    phone: SlowPhone | None = None


def walk(made: Catalog, work: Path, visitors: int, seconds: float, loads: int) -> Street:
    """Let visitors walk a street that is open, some of them signed in."""
    session = asyncio.run(_session(made))
    port = free_port()
    settings = made.database.settings
    environment = {
        "HAAT_DATA_DIR": str(settings.data_dir),
        "HAAT_PORT": str(port),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(path for path in sys.path if path),
    }
    command = (sys.executable, "-m", "haat.cli.main", "control")
    with running(command, work / "control.log", environment=environment) as pid:
        address = f"http://{LOOPBACK}:{port}"
        _await(address)
        street = asyncio.run(_walk(made, address, pid, session, visitors, seconds))
        return replace(street, phone=slow_phone(address, loads))


async def _session(made: Catalog) -> str:
    """Return the session of somebody of the organisation that some listings are open to."""
    async with open_platform(made.database.settings) as platform:
        actor = await platform.identity.create_organisation(
            email="asha@example.in", password=PASSWORD, name="Asha", organisation="Asha Apps", kind="consumer"
        )
        await platform.identity.create_application(actor, "storefront")
        return (await platform.identity.sign_in("asha@example.in", PASSWORD)).token


def _await(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{address}/health", trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _addresses(made: Catalog, dice: random.Random) -> dict[str, tuple[str, bool]]:
    """Return an address of each kind of page, and whether a session asks for it."""
    word = quote(made.words[int(len(made.words) ** dice.random()) - 1])
    language = dice.choice(LANGUAGES)
    return {
        "landing": ("/", False),
        "catalog": ("/catalog", False),
        "catalog, a word": (f"/catalog?q={word}", False),
        "catalog, narrowed": (f"/catalog?language={language}&category=ocr", False),
        "completions": (f"/catalog/suggest?q={word[:9]}", False),
        "listing": (f"/services/{made.path}", False),
        "service level": (f"/services/{made.path}/level", False),
        "sign in": ("/sign-in", False),
        "sign up": ("/sign-up", False),
        "not found": ("/nowhere", False),
        "landing, signed in": ("/", True),
        "catalog, a word, signed in": (f"/catalog?q={word}", True),
        "listing, signed in": (f"/services/{made.path}", True),
        "applications": ("/account", True),
        "subscriptions": ("/account/subscriptions", True),
        "usage": ("/account/usage", True),
        "calls": ("/account/calls", True),
        "invoices": ("/account/invoices", True),
    }


async def _walk(made: Catalog, address: str, pid: int, session: str, visitors: int, seconds: float) -> Street:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=visitors)
    took: dict[str, list[float]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    failed = 0
    async with httpx.AsyncClient(base_url=address, limits=limits, trust_env=False, timeout=30) as client:

        async def ask(name: str, path: str, signed_in: bool) -> float:
            nonlocal failed
            headers = (
                {"Accept": "text/html", "Cookie": f"haat_session={session}"} if signed_in else {"Accept": "text/html"}
            )
            began = time.perf_counter()
            try:
                answer = await client.get(path, headers=headers)
            except httpx.HTTPError:
                failed += 1
            else:
                failed += answer.status_code != (404 if name == "not found" else 200)
                sizes[name] = (answer.num_bytes_downloaded, len(answer.content))
            return (time.perf_counter() - began) * 1000

        async def visit(number: int, until: float) -> None:
            dice = random.Random(number)  # noqa: S311 - it chooses pages, no secrets
            await asyncio.sleep(dice.uniform(0, MOST_PAUSE))
            while time.monotonic() < until:
                addresses = _addresses(made, dice)
                name = dice.choice(list(addresses))
                took.setdefault(name, []).append(await ask(name, *addresses[name]))
                await asyncio.sleep(dice.uniform(LEAST_PAUSE, MOST_PAUSE))

        for name, (path, signed_in) in _addresses(made, random.Random(0)).items():  # noqa: S311 - once to warm up
            await ask(name, path, signed_in)
        say(f"  {visitors} visitors for {seconds:.0f} s")
        before, began = cpu(pid), time.monotonic()
        await asyncio.gather(*(visit(number, began + seconds) for number in range(visitors)))
        spent, passed = cpu(pid), time.monotonic() - began
        landing = (await client.get("/")).text
        linked = sorted(set(_LINKED.findall(landing)))
        first = len(gzip.compress(landing.encode(), 5))
        for path in linked:
            first += (await client.get(path)).num_bytes_downloaded
    asked = sum(map(len, took.values()))
    return Street(
        visitors=visitors,
        seconds=passed,
        pages_a_second=asked / passed,
        failed=failed,
        cpu_ms=(sum(spent) - sum(before)) / asked * 1000,
        rss_mb=psutil.Process(pid).memory_info().rss / (1 << 20),
        pages=tuple(_page(name, sorted(times), sizes[name]) for name, times in took.items()),
        first_visit_bytes=first,
    )


def _page(name: str, times: Sequence[float], sizes: tuple[int, int]) -> Page:
    return Page(name, len(times), percentile(times, 0.5), percentile(times, 0.95), times[-1], *sizes)


def slow_phone(address: str, loads: int) -> SlowPhone | None:
    """Load the landing page in Chromium with an empty cache, slowed down; None where there is no Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if not CHROMIUM.exists():
        return None
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        for _ in range(loads):
            context = browser.new_context(viewport={"width": 390, "height": 844})
            page = context.new_page()
            tools = context.new_cdp_session(page)
            tools.send("Network.enable")
            tools.send(
                "Network.emulateNetworkConditions",
                {
                    "offline": False,
                    "latency": RTT_MS,
                    "downloadThroughput": BYTES_A_SECOND,
                    "uploadThroughput": BYTES_A_SECOND,
                },
            )
            tools.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
            page.goto(address, wait_until="load")
            page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
            found.append(page.evaluate(_TIMES))
            context.close()
        browser.close()
    paint, usable, sent = (sorted(one[name] for one in found)[loads // 2] for name in ("paint", "usable", "sent"))
    return SlowPhone(loads, paint, usable, sent)


_TIMES = """() => {
    const page = performance.getEntriesByType('navigation')[0];
    const all = [page, ...performance.getEntriesByType('resource')];
    const sent = all.reduce((sum, one) => sum + one.transferSize, 0);
    const paint = performance.getEntriesByName('first-contentful-paint')[0].startTime;
    return {paint, usable: Math.max(paint, page.domContentLoadedEventEnd), sent};
}"""
"""A page is usable when it can be seen, its scripts have run and its forms can be sent."""
