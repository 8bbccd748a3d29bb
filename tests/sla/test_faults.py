"""Whose fault a call is: the table, the same in SQL, and docs/sla.md."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from haat.infra.postgres import PLATFORM_SCOPE
from haat.sla.faults import RULES, Verdict, as_data, condition, from_data, verdict
from haat.usage.event import Outcome

DOCUMENT = (Path(__file__).parents[2] / "docs" / "sla.md").read_text()

CODES = (
    "",
    "PROVIDER_FAILED",
    "PROVIDER_TIMEOUT",
    "PROVIDER_UNAVAILABLE",
    "PROVIDER_REFUSED",
    "OVERLOADED",
    "JOURNAL_FULL",
    "CONTENT_REFUSED",
    "PLUGIN_FAILED",
    "INTERNAL",
    "RATE_LIMITED",
    "SERVICE_IN_MAINTENANCE",
    "SERVICE_SUSPENDED",
    "REQUEST_TIMEOUT",
)
STATUSES = (0, 200, 304, 400, 401, 404, 408, 413, 422, 429, 499, 500, 501, 502, 503, 504, 505, 599)
CACHES = ("", "miss", "bypass", "partial", "hit", "replay")


def said(outcome: str, status: int = 200, code: str = "", cache: str = "", mode: str = "live") -> Verdict:
    return verdict(mode=mode, cache=cache, outcome=outcome, status=status, code=code)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 422, 429, 499])
def test_a_callers_4xx_counts_for_nothing(status: int) -> None:
    assert said("provider_failed", status) is Verdict.NOT_COUNTED


@pytest.mark.parametrize("code", [code for code in CODES if code and not code.startswith("PROVIDER_")])
def test_our_own_refusals_and_errors_count_for_nothing_even_in_the_middle_of_an_answer(code: str) -> None:
    for status in STATUSES:
        assert said("refused", status, code) is Verdict.NOT_COUNTED
        assert said("provider_failed", status, code) is Verdict.NOT_COUNTED


@pytest.mark.parametrize("mode", ["test", "shadow", "something newer"])
def test_test_and_shadow_calls_count_for_nothing(mode: str) -> None:
    for outcome in Outcome:
        assert said(outcome.value, 503, mode=mode) is Verdict.NOT_COUNTED


@pytest.mark.parametrize("outcome", ["client_left", "refused", "interrupted", "unconfirmed"])
def test_what_nobody_can_prove_counts_for_nothing(outcome: str) -> None:
    assert {said(outcome, status, code) for status in STATUSES for code in CODES} == {Verdict.NOT_COUNTED}


@pytest.mark.parametrize("cache", ["hit", "replay"])
def test_an_answer_for_which_no_provider_was_asked_counts_for_nothing(cache: str) -> None:
    assert said("completed", cache=cache) is Verdict.NOT_COUNTED
    assert said("completed", cache="partial") is Verdict.ANSWERED


def test_a_providers_500_is_its_failure_and_says_nothing_of_its_endpoint() -> None:
    assert said("provider_failed", 500) is Verdict.FAILED
    assert {said("provider_failed", status) for status in (502, 503, 504)} == {Verdict.DOWN}


@pytest.mark.parametrize("code", ["PROVIDER_FAILED", "PROVIDER_TIMEOUT", "PROVIDER_UNAVAILABLE"])
def test_a_provider_that_gives_nothing_usable_is_down_also_when_its_head_had_left(code: str) -> None:
    assert {said("provider_failed", status, code) for status in (200, 502, 503, 504)} == {Verdict.DOWN}


async def test_the_database_judges_every_call_as_the_table_does(database: Any) -> None:
    cases = list(product(("live", "test", "shadow"), CACHES, [one.value for one in Outcome], STATUSES, CODES))
    text, values = condition()
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        rows = await connection.execute(
            f"""
            SELECT {text} AS verdict FROM unnest(%(modes)s::text[], %(caches)s::text[], %(outcomes)s::text[],
                %(statuses)s::smallint[], %(codes)s::text[]) WITH ORDINALITY
                AS usage (mode, cache, outcome, status, error_code, place) ORDER BY place
            """,
            {
                **values,
                **dict(
                    zip(
                        ("modes", "caches", "outcomes", "statuses", "codes"),
                        map(list, zip(*cases, strict=True)),
                        strict=True,
                    )
                ),
            },
        )
        found = [row["verdict"] async for row in rows]
    assert found == [
        verdict(mode=mode, cache=cache, outcome=outcome, status=status, code=code).value
        for mode, cache, outcome, status, code in cases
    ]


def test_rules_are_kept_and_read_back() -> None:
    assert from_data(as_data()) == RULES


def test_the_page_has_every_rule_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| (\*\*\w+\*\*) \| ([^|]+) \|$", DOCUMENT, re.MULTILINE)
    written = [
        (outcome, status.strip(), code.strip(), word.strip("*"), why.strip())
        for outcome, status, code, word, why in rows
    ]
    expected = [
        (
            rule.outcome.value,
            "any" if (rule.least, rule.most) == (0, 999) else f"{rule.least}–{rule.most}",
            "any" if rule.codes is None else "none: its own answer" if rule.codes == ("",) else f"`{rule.codes[0]}`",
            rule.verdict.value,
            rule.why,
        )
        for rule in RULES
    ]
    assert written == expected
