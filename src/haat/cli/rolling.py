"""Rollouts of the tour: one version that takes over step by step, and one that goes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import httpx
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from haat.cli.hosting_result import HostingResult
from haat.cli.people import TourFailed
from haat.cli.sentences import HINDI, MARATHI

if TYPE_CHECKING:
    from haat.cli.tour import Tour

SHARES = (5, 25, 50, 100)
CALLS_A_SHARE = 200
BAD_SHARE = 10
CALLERS = 12
USERS = 1000
_WAIT_SECONDS = 60.0
_TEXTS = (*HINDI, *MARATHI)


class Traffic:
    """Calls of many users that go on while versions come and go; the counts are those since `reset`."""

    def __init__(self, gateway: httpx.AsyncClient, listing: str, key: str) -> None:
        self._gateway, self._listing, self._key = gateway, listing, key
        self._numbers = itertools.count()
        self._stopped = False
        self.answered = 0
        """Of all calls, for good."""
        self.reset()

    def reset(self) -> None:
        """Count anew."""
        self.calls = self.candidate = self.failed = 0
        self.last_failure = ""
        self.batches: list[int] = []
        self.milliseconds: list[float] = []

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Make calls for the length of a block, and let those that run come to their end."""
        self._stopped = False
        self.reset()
        callers = [asyncio.create_task(self._caller()) for _ in range(CALLERS)]
        try:
            yield
        finally:
            self._stopped = True
            await asyncio.gather(*callers)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for the calls; raise TourFailed when that takes a minute."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while not reached():
            if time.monotonic() > deadline:
                raise TourFailed(f"{self._listing} answered {self.calls} calls within a minute; {self.last_failure}")
            await asyncio.sleep(0.01)

    async def _caller(self) -> None:
        while not self._stopped:
            number = next(self._numbers)
            began = time.perf_counter()
            try:
                response = await self._gateway.post(
                    f"/v1/services/{self._listing}/invoke",
                    json={"input": [{"text": f"{_TEXTS[number % len(_TEXTS)]} {number}"}]},
                    headers={"Authorization": f"Bearer {self._key}", "X-Haat-User": f"user-{number % USERS}"},
                )
            except httpx.HTTPError as error:
                self.calls, self.failed, self.last_failure = self.calls + 1, self.failed + 1, repr(error)
                await asyncio.sleep(0.1)
                continue
            self.milliseconds.append((time.perf_counter() - began) * 1000)
            self.calls += 1
            self.candidate += response.headers.get("X-Haat-Variant") == "candidate"
            if response.is_success:
                self.answered += 1
                self.batches.append(int(response.headers.get("X-Haat-Batch", "1")))
            else:
                self.failed += 1
                self.last_failure = f"{response.status_code} {response.text[:300]}"


async def roll_out_a_good_one(tour: Tour, traffic: Traffic, service: str, version: str, result: HostingResult) -> None:
    """Give a version more and more of the calls that go on, and make it the default one."""
    rollout = await tour.provider.ask("POST", f"/services/{service}/rollouts", {"candidate": version, "percent": 0})
    way = f"/rollouts/{rollout['id']}"
    with _progress(tour) as progress:
        task = progress.add_task(f"out {version}", total=100, said="")
        async with traffic.flowing():
            for percent in SHARES:
                await tour.provider.ask("PUT", f"{way}/percent", {"percent": percent})
                await tour.catch_up()
                result.failed_meanwhile += traffic.failed
                traffic.reset()
                await traffic.until(lambda: traffic.calls >= CALLS_A_SHARE)
                result.shares[str(percent)] = (traffic.calls, traffic.candidate)
                progress.update(task, completed=percent, said=f"{traffic.candidate} of {traffic.calls} calls")
            await tour.provider.ask("POST", f"{way}/promote")
            await tour.catch_up()
        result.failed_meanwhile += traffic.failed
    if result.failed_meanwhile:
        raise TourFailed(f"{result.failed_meanwhile} calls failed on the way to {version}: {traffic.last_failure}")
    result.promoted = version
    shown = " · ".join(f"{percent} %: {taken} of {calls}" for percent, (calls, taken) in result.shares.items())
    tour.say(shown)
    tour.say("no call failed, and it is the default version now")


async def roll_out_a_bad_one(tour: Tour, traffic: Traffic, service: str, version: str, result: HostingResult) -> None:
    """Give a version that fails a part of its calls a share, and wait for it to be taken back."""
    with _progress(tour) as progress:
        task = progress.add_task(f"out {version}", total=100, said="")
        async with traffic.flowing():
            asked = {"candidate": version, "percent": BAD_SHARE, "rule": {"min_calls": 20}}
            rollout = await tour.provider.ask("POST", f"/services/{service}/rollouts", asked)
            progress.update(task, completed=BAD_SHARE, said=f"{BAD_SHARE} %")
            rollout = await _ended(tour, rollout["id"])
            progress.update(task, completed=0, said="rolled back")
            await tour.catch_up()
            result.candidate_calls, result.candidate_failures = traffic.candidate, traffic.failed
            traffic.reset()
            await traffic.until(lambda: traffic.calls >= CALLS_A_SHARE)
            result.failed_after = traffic.failed
    result.answered = traffic.answered
    if rollout["status"] != "rolled_back":
        raise TourFailed(f"The bad version was not rolled back: {rollout}")
    result.rolled_back, result.reason = version, rollout["reason"]
    tour.say(f"rolled back by itself: {result.reason}")
    tour.say(
        f"{result.candidate_failures} calls failed, of {result.candidate_calls} that {version} was given; "
        f"of the next {traffic.calls} calls {result.failed_after or 'none'}"
    )


async def _ended(tour: Tour, rollout: str) -> Any:
    deadline = time.monotonic() + 2 * _WAIT_SECONDS  # once a minute the control plane looks as well
    while True:
        found = (await tour.provider.ask("GET", f"/rollouts/{rollout}"))["rollout"]
        if found["ended_at"] is not None:
            return found
        if time.monotonic() > deadline:
            raise TourFailed(f"The rollout has not ended: {found}")
        await asyncio.sleep(0.2)


def _progress(tour: Tour) -> Progress:
    return Progress(
        TextColumn("  [bold]Rolling[/bold] {task.description:<28}"),
        BarColumn(bar_width=36),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
        console=tour.console,
    )
