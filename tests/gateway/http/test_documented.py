"""The page on HTTP names every refusal that the corpus knows, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.http.corpus import CASES
from gateway.http.wire import Wire
from haat.gateway.http import connection, reader, surplus
from haat.gateway.http.headers import METHODS
from haat.gateway.upstreams.reader import MAX_ANSWER_HEAD

PAGE = (Path(__file__).parents[3] / "docs" / "http.md").read_text()


def test_each_refusal_is_on_the_page_with_its_code(wire: Wire) -> None:
    documented = set(re.findall(r"^\| (\d{3}) \| `([A-Z_]+)` \|", PAGE, re.MULTILINE))
    met = set()
    for case in CASES:
        if any(status >= 400 for status in case.answers):
            for answer in wire.run(case.raw, patience=case.patience).answers(case.methods):
                if answer.status >= 400 and answer.body:
                    met.add((str(answer.status), answer.json()["code"]))
    others = {("401", "INVALID_CREDENTIAL"), ("404", "SERVICE_NOT_FOUND")}  # of the key and the market, not of HTTP
    assert met - others == documented


def test_the_figures_on_the_page_are_the_gateways() -> None:
    for figure in (
        f"more than {reader.MAX_FIELDS} to be forwarded",
        f"{connection.MAX_PIPELINED} wait at most",
        f"of {surplus.WAITED_FOR} at a",
        f"beyond {MAX_ANSWER_HEAD // 1024} KiB",
    ):
        assert figure in " ".join(PAGE.split()), figure
    for method in METHODS:
        assert method.decode() in PAGE
