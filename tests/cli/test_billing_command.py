"""`haat billing`: a month is closed from the terminal, by itself if no worker runs."""

from __future__ import annotations

import json
from typing import Any


def test_a_month_without_usage_is_closed_and_its_status_is_told(run: Any) -> None:
    done = run("billing", "run", "2026-01", "--wait", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output.splitlines()[-1])
    assert (told["state"], told["batches"], told["failed"]) == ("done", 0, [])
    assert "2026-01 done" in run("billing", "status", "2026-01").output
    assert "2026-01" in run("billing", "status").output


def test_a_month_that_runs_and_a_run_that_never_was_are_refused_in_a_sentence(run: Any) -> None:
    for command, sentence in (
        (("billing", "run", "2099-01"), "is not over"),
        (("billing", "run", "january"), "A period is a month"),
        (("billing", "status", "2026-02"), "Nobody has begun"),
        (("billing", "correct", "01a19339-c840-7000-8000-000000000000", "--reason", "x"), "either --void or"),
        (("billing", "pay", "01a19339-c840-7000-8000-000000000000", "much", "UTR"), "is no amount"),
    ):
        refused = run(*command)
        assert refused.exit_code != 0 and sentence in refused.output, refused.output
