"""Takes the pictures of docs/tour.md, in Chromium, on a platform with the demo's sale on it.

    PYTHONPATH=tests/verify python tools/tour.py

A picture is taken of a page only if what it is to show stands on it; otherwise it ends with status 1 and the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from playwright.sync_api import Browser, Page, ViewportSize, expect
from playwright.sync_api import Error as BrowserError
from running import RunningPlatform, account_of
from walking import Walk, open_chromium

from haat.bootstrap import OPERATOR_EMAIL
from haat.cli.demo import DEVELOPER_EMAIL, PROVIDER_EMAIL

FOLDER = Path(__file__).parents[1] / "docs" / "tour"
DEMO_SECONDS = 600
PATIENCE_MS = 15_000
DESK, PHONE = ViewportSize(width=1280, height=800), ViewportSize(width=360, height=740)
TRANSLATION = "/services/vani/translate-hi-ur"
VISITOR, DEVELOPER, PROVIDER, OPERATOR = "", DEVELOPER_EMAIL, PROVIDER_EMAIL, OPERATOR_EMAIL


def _nothing(page: Page) -> None:
    """Leave the page as it has come."""


def follow(selector: str) -> Callable[[Page], None]:
    """Go where the first such link leads."""

    def act(page: Page) -> None:
        page.locator(selector).first.click()
        page.wait_for_load_state()

    return act


def call_it(page: Page) -> None:
    """Try the service with what the form begins with."""
    page.get_by_role("button", name="Call it").first.click()
    expect(page.locator("#answer .said")).to_be_visible()
    page.locator("#answer").scroll_into_view_if_needed()


@dataclass(frozen=True, slots=True)
class Picture:
    """``path`` may name members of the demo's result, and a ``failed_id``; ``see`` selects what must stand there."""

    name: str
    who: str
    path: str
    see: str
    act: Callable[[Page], None] = _nothing
    size: ViewportSize = field(default_factory=lambda: DESK)
    scheme: str = "light"


PICTURES = (
    Picture("landing", VISITOR, "/", ".stall"),
    Picture("catalog", VISITOR, "/catalog?q=anuvad", ".stall"),
    Picture("catalog-dark", VISITOR, "/catalog", ".stall", scheme="dark"),
    Picture("hindi-phone", VISITOR, "/hi/", ".stall", size=PHONE),
    Picture("urdu-phone", VISITOR, f"/ur{TRANSLATION}", "h1", size=PHONE),
    Picture("listing", DEVELOPER, TRANSLATION, "#answer .said", call_it),
    Picture("story", DEVELOPER, "/account/calls/{request_id}", "h2:has-text('What it cost')"),
    Picture("usage", DEVELOPER, "/account/usage", "table:visible"),
    Picture("invoice", DEVELOPER, "/account/invoices", "table:visible", follow("table a[href*='/account/invoices/']")),
    Picture("analytics", PROVIDER, "/partner/analytics", "svg:visible"),
    Picture("statement", PROVIDER, "/partner/statements", "table:visible", follow("a[href*='/partner/statements/']")),
    Picture("desk", OPERATOR, "/operator", "h1"),
    Picture("lookup", OPERATOR, "/operator/calls/{failed_id}", "h1"),
    Picture("gateways", OPERATOR, "/operator/gateways", "table:visible"),
    Picture("audit", OPERATOR, "/operator/audit", "table:visible"),
)


def main() -> int:
    """Sell, then take all pictures; return the exit status."""
    with tempfile.TemporaryDirectory(prefix="haat-tour-") as folder:
        began = time.monotonic()
        say("The demo makes its sale …")
        platform = RunningPlatform(Path(folder))
        try:
            sale = _sale(platform)
            say(f"… and is done after {time.monotonic() - began:.0f} s; now the pictures.")
            platform.start()
            named = {**sale, "failed_id": _a_failed_call(platform)}
            with open_chromium() as browser:
                for picture in PICTURES:
                    take(browser, platform, picture, named)
        except (BrowserError, AssertionError, TourFailed) as error:
            say(f"The tour stops: {error}")
            return 1
        finally:
            platform.stop()
    total = sum(file.stat().st_size for file in FOLDER.glob("*.png"))
    say(f"{len(PICTURES)} pictures lie in docs/tour, {total // 1024:,} KB together.")
    return 0


class TourFailed(Exception):
    """The demo or a page isn't what it should be; the sentence says what."""


def _sale(platform: RunningPlatform) -> Mapping[str, Any]:
    """Run the demo on the platform's data and return its result."""
    done = subprocess.run(
        platform.command("demo", "--once"),
        env=platform.environment,
        cwd=platform.data_dir,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    if done.returncode:
        raise TourFailed(f"the demo failed: {done.stderr.strip()[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _a_failed_call(platform: RunningPlatform) -> str:
    """Return the id of a call that a bad version spoiled before it was rolled back."""
    with psycopg.connect(platform.owner_dsn()) as connection:
        row = connection.execute(
            "SELECT id FROM usage WHERE outcome = 'provider_failed' ORDER BY id LIMIT 1"
        ).fetchone()
    if row is None:
        raise TourFailed("no call of the demo has failed")
    return str(row[0])


def take(browser: Browser, platform: RunningPlatform, picture: Picture, named: Mapping[str, Any]) -> None:
    """Take one picture; raise TourFailed for a page that isn't the one."""
    context = browser.new_context(viewport=picture.size, color_scheme=picture.scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    try:
        walk = Walk(context, platform.control_url)
        if picture.who:
            walk.sign_in(*account_of(platform, picture.who))
        path = picture.path.format_map(named)
        answer = walk.page.goto(walk.address + path)
        if answer is None or not answer.ok:
            raise TourFailed(f"{path} answers {answer.status if answer else 'nothing'}")
        picture.act(walk.page)
        expect(walk.page.locator(picture.see).first, f"{path} shows no {picture.see}").to_be_visible()
        if walk.complaints:
            raise TourFailed(f"{path}: {walk.complaints[0]}")
        walk.page.screenshot(path=FOLDER / f"{picture.name}.png", animations="disabled", caret="hide")
    finally:
        context.close()
    say(f"  {picture.name}")


def say(sentence: str) -> None:
    """Tell the person who waits."""
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
