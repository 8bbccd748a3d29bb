"""A person's browser: Debian's Chromium, what its console complains about, and what axe finds on a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
PASSWORD = "a street with many stalls"
WIDTHS = (320, 768, 1440)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


class Walk:
    """One person's browser; what its console complains about is kept."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.page: Page = context.new_page()
        self.address = address
        self.complaints: list[str] = []
        self.refused = ["/nowhere"]
        """Parts of the addresses that are meant to be answered with an error; the browser says so on its console."""
        self.clicks = 0
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        expected = any(part in message.location.get("url", "") for part in self.refused)
        if message.type in ("error", "warning") and not expected:
            self.complaints.append(message.text)

    def go(self, path: str) -> None:
        self.page.goto(self.address + path)

    def wait_until(self, promised: str, argument: Any = None) -> None:
        """Ask a function that promises its answer, again and again, until it is true; Playwright's own wait takes the
        promise for the answer."""
        until = monotonic() + 15
        while not self.page.evaluate(promised, argument):
            assert monotonic() < until, f"not true within 15 s: {promised} of {argument}"
            self.page.wait_for_timeout(20)

    def press(self, role: Any, name: str) -> None:
        """Click what a person would click, and count it."""
        self.clicks += 1
        self.page.get_by_role(role, name=name, exact=True).first.click()

    def sign_in(self, email: str, password: str = PASSWORD) -> None:
        self.go("/sign-in")
        self.page.get_by_label("E-mail").fill(email)
        self.page.get_by_label("Password").fill(password)
        self.press("button", "Sign in")
        self.page.wait_for_url("**/account*")

    def sign_up(self, kind: str = "consumer") -> str:
        email = f"{uuid4().hex[:12]}@example.in"
        page = self.page
        page.locator(f"input[name=kind][value={kind}]").check()
        page.get_by_label("Your name").fill("Asha")
        page.get_by_label("Organisation").fill(f"Asha Apps {email[:4]}")
        page.get_by_label("E-mail").fill(email)
        page.get_by_label("Password").fill(PASSWORD)
        self.press("button", "Sign up")
        expect(page.get_by_role("status").first).to_contain_text("Welcome")
        return email

    def faults(self) -> list[str]:
        """Return what axe finds on the page as it stands (WCAG 2.1 A and AA)."""
        self.page.evaluate(AXE)
        found: list[str] = self.page.evaluate(
            """rules => axe.run(document, {runOnly: rules}).then(result => result.violations.map(
                   one => one.id + ' at ' + one.nodes.map(node => node.target.join(' ')).join(', ')))""",
            RULES,
        )
        return found

    def overflow(self) -> int:
        """Return by how many px the page is wider than the window."""
        wide: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return wide

    def wrong_on(self, path: str) -> list[str]:
        """Open a page at three widths, and from right to left; return what breaks a rule or scrolls sideways."""
        wrong = []
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 800})
            self.go(path)
            wrong += self.wrong_here(f"{path} at {width}")
        self.page.set_viewport_size({"width": 320, "height": 800})
        self.page.evaluate("document.documentElement.dir = 'rtl'")
        return wrong + self.wrong_here(f"{path} from right to left")

    def wrong_here(self, where: str) -> list[str]:
        """Return what breaks a rule on the page as it stands, and by how much it is too wide."""
        too_wide = [f"{self.overflow()} px too wide"] if self.overflow() > 0 else []
        return [f"{where}: {fault}" for fault in [*self.faults(), *too_wide]]
