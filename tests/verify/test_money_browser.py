"""The pages of money in Debian's Chromium: from line to call and back, axe in every state, and a month that closes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from counting_house import NEIGHBOUR, NEWCOMER, House, open_house
from playwright.sync_api import Browser, BrowserContext, Locator, expect
from walking import PASSWORD, WIDTHS, Walk

from conftest import TEMPLATE, Cluster
from portal.street import DEVELOPER, OPERATOR, PROVIDER, STRANGER

pytestmark = pytest.mark.verify

APPLICANT = "hello@bhasha.example"
NOBODYS = "0199f0c2-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def house(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    name = "counting_house"
    cluster.create(name, TEMPLATE)
    try:
        folder = tmp_path_factory.mktemp(name)
        with open_house(cluster.dsn("app", name), cluster.dsn("service", name), folder) as opened:
            yield opened
    finally:
        cluster.drop(name)


@pytest.fixture
def walk_as(chromium: Browser, house: House) -> Iterator[Callable[..., Walk]]:
    """``walk_as(email)`` opens a browser of somebody who has signed in; keywords are those of a browser context."""
    contexts: list[BrowserContext] = []

    def open_walk(email: str, **options: Any) -> Walk:
        context = chromium.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        walk = Walk(context, house.address)
        walk.sign_in(email, PASSWORD)
        return walk

    yield open_walk
    for context in contexts:
        context.close()


def follow(walk: Walk, link: Locator) -> None:
    """Click a link, and wait for the page behind it."""
    link.click()
    walk.page.wait_for_load_state()


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without script"])
def test_every_line_opens_its_calls_each_call_its_story_and_the_story_its_line(
    walk_as: Callable[..., Walk], script: bool
) -> None:
    for email, shelf, papers in ((DEVELOPER, "/account/invoices", "HT/2627/"), (PROVIDER, "/partner/statements", "Oc")):
        me = walk_as(email, java_script_enabled=script)
        page = me.page
        me.go(shelf)
        follow(me, page.locator("tbody a", has_text=papers).first)
        paper = page.url
        lines = [str(one.get_attribute("id")) for one in page.locator("tr[id^=line-]").all()]
        assert lines
        for line in lines:
            me.go(paper.removeprefix(me.address))
            behind = page.locator(f"#{line} a", has_text="call")
            calls = int(behind.inner_text().split()[0])
            follow(me, behind)
            assert page.locator("tbody tr").count() == calls
            call = page.locator("tbody a").first
            identifier = call.inner_text()
            follow(me, call)
            expect(page.get_by_role("heading", name="One call")).to_be_visible()
            expect(page.locator(".head code")).to_have_text(identifier)
            follow(me, page.locator(f'#cost + dl a[href$="#{line}"], #cost ~ dl a[href$="#{line}"]'))
            assert page.url == f"{paper}#{line}"
            page.go_back()
            follow(me, page.get_by_role("link", name="its calls").first)
            expect(page.locator("tbody a", has_text=identifier)).to_be_visible()
        assert me.complaints == []


def pages(house: House) -> dict[str, list[str]]:
    """Return the pages of money by who sees them: full, empty, refused."""
    level, invoice, statement = (
        f"/services/{house.street.listings[0].path}/level", f"/account/invoices/{house.street.invoice.id}",
        f"/partner/statements/{house.statement}",
    )  # fmt: skip
    (paid, held), (open_dispute, decided) = house.payouts, house.disputes
    account = [f"/account/{page}" for page in ("invoices", "wallet", "disputes", "analytics", "live", "usage", "calls")]
    return {
        DEVELOPER: [
            *account, invoice, f"{invoice}/lines/{house.invoice_line}", f"/account/calls/{house.street.call}",
            f"/account/disputes/{open_dispute}", level, f"{level}/months/{house.month}",
            f"/account/invoices/{NOBODYS}", "/operator/payouts",
        ],
        STRANGER: account,
        NEWCOMER: ["/account/invoices"],
        PROVIDER: [
            "/partner/statements", statement, f"{statement}/lines/{house.statement_line}", "/partner/payouts",
            f"/partner/payouts/{paid}", "/partner/analytics", "/account/disputes", f"/account/disputes/{decided}",
            f"/partner/services/{house.street.listings[0].id}/prices", level, f"{level}/months/{house.month}",
        ],
        NEIGHBOUR: ["/services/akshara/sentiment/level", f"/partner/payouts/{held}"],
        APPLICANT: ["/partner/statements", "/partner/payouts", "/partner/analytics"],
        OPERATOR: [
            "/operator/invoices", "/operator/invoices?month=2026-10", "/operator/payouts",
            "/operator/payouts?status=failed", f"/operator/payouts/{paid}", f"/operator/payouts/{held}",
            "/operator/disputes", "/operator/disputes?status=agreed", f"/operator/disputes/{open_dispute}",
            f"/operator/disputes/{decided}", "/operator/analytics", f"/account/calls/{house.street.call}", statement,
            "/operator/settlements", "/operator/settlements?month=2026-11", "/operator/levels",
            "/operator/payments", f"/operator/payments/{house.payment}", "/operator/plugins",
        ],
    }  # fmt: skip


def refused(house: House) -> list[tuple[str, str, dict[str, str], str]]:
    """Return forms that are sent with something wrong: who, where, what is typed, and the button."""
    level = f"/services/{house.street.listings[0].path}/level"
    return [
        (DEVELOPER, "/account/wallet", {"amount": "much"}, "Set the budget"),
        (DEVELOPER, "/account/disputes", {"reason": "Not ours"}, "Compare"),
        (PROVIDER, "/partner/payouts", {"holder": "", "number": "1", "ifsc": "X"}, "Replace the account"),
        (PROVIDER, f"/partner/services/{house.street.listings[0].id}/prices", {"unit_price": "dear"}, "Show what it"),
        (PROVIDER, level, {"availability": "101", "tiers": "many"}, "Promise it"),
        (PROVIDER, level, {"note": "Tomorrow"}, "Announce it"),
        (OPERATOR, f"/operator/disputes/{house.disputes[0]}", {"note": "Yes", "credit": "much"}, "Decide"),
        (OPERATOR, "/operator/payments", {"serial": "HT/1", "amount": "much"}, "Record it"),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_of_money_breaks_a_rule_of_accessibility_or_scrolls_sideways(
    walk_as: Callable[..., Walk], house: House, scheme: str
) -> None:
    wrong: list[str] = []
    for email, paths in pages(house).items():
        me = walk_as(email, color_scheme=scheme)
        me.refused += [NOBODYS, "/operator/payouts"] if email == DEVELOPER else []
        for path in paths:
            wrong += me.wrong_on(path)
        wrong += [f"console of {email}: {complaint}" for complaint in me.complaints]
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_form_of_money_breaks_a_rule_when_it_is_refused(
    walk_as: Callable[..., Walk], house: House, scheme: str
) -> None:
    wrong: list[str] = []
    for email, path, typed, button in refused(house):
        me = walk_as(email, color_scheme=scheme)
        me.refused.append(path)
        me.go(path)
        me.page.evaluate("for (const form of document.forms) form.noValidate = true")
        for name, text in typed.items():
            me.page.locator(f"main [name^={name}]").first.fill(text)
        me.page.get_by_role("button", name=button).first.click()
        expect(me.page.locator("[aria-invalid=true], [role=alert]").first).to_be_visible()
        for width in WIDTHS:
            me.page.set_viewport_size({"width": width, "height": 800})
            wrong += me.wrong_here(f"{path} refused at {width}")
        wrong += [f"console of {path}: {complaint}" for complaint in me.complaints]
    assert wrong == []


def test_a_month_closes_before_ones_eyes_and_says_who_was_not_billed_and_why(
    walk_as: Callable[..., Walk], house: House
) -> None:
    me = walk_as(OPERATOR)
    page, billing = me.page, house.platform.billing
    billing._batch = 1  # one organisation each, so that there is something to see
    me.go("/operator/invoices")
    expect(page.get_by_text("No invoice for this month")).to_be_visible()
    page.get_by_text("Close November 2026…").click()
    me.press("button", "Issue the invoices of November 2026")
    expect(page.locator("#run")).to_contain_text("November 2026 is being closed")
    bar = page.locator("#run progress")
    assert bar.evaluate("bar => bar.position") == 0
    assert house.do(billing._one("2026-11"))
    expect(bar).not_to_have_attribute("value", "0")
    assert me.faults() == []
    house.do(billing.work("2026-11"))
    expect(page.locator("#run")).to_contain_text("November 2026 is closed")
    expect(page.get_by_role("table").last).to_contain_text("Sabzi Mandi Software")
    follow(me, page.get_by_role("button", name="Show"))
    page.get_by_label("Month").select_option("2026-10")
    left_out = page.get_by_role("row", name="Nowhere Agricultural Produce")
    expect(left_out).to_contain_text("The buyer's State is not one GST knows")
    expect(page.get_by_text("Close October 2026 once more…")).to_be_visible()
    assert me.complaints == []
