"""`haat jobs`, `haat dead-letters`, `haat events`: as an operator and as a program use them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import psycopg
import pytest
from click.testing import CliRunner, Result

from haat.cli.main import haat
from haat.infra import dead_letters, events
from haat.infra.jobs import Jobs, NewJob
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import SetClock
from haat.kernel.ids import new_id

T = TypeVar("T")


class Shell(NamedTuple):
    """A shell on a platform whose database is the test's own."""

    dsn: str
    owner_dsn: str

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(haat, [*words])

    def json(self, *words: str) -> Any:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    def given(self, do: Callable[[Connection, Jobs], Awaitable[T]]) -> T:
        async def inside() -> T:
            async with Database(self.dsn) as db, db.transaction(PLATFORM_SCOPE) as connection:
                return await do(connection, Jobs(db))

        return asyncio.run(inside())


@pytest.fixture
def shell(cluster: Any, database_name: str, monkeypatch: pytest.MonkeyPatch) -> Shell:
    shell = Shell(cluster.dsn("app", database_name), cluster.dsn("owner", database_name))
    monkeypatch.setenv("HAAT_DATA_DIR", str(cluster.settings.data_dir))
    monkeypatch.setenv("HAAT_DATABASE_URL", shell.owner_dsn)
    monkeypatch.setenv("COLUMNS", "200")
    return shell


def a_job(shell: Shell, **options: Any) -> int:
    async def defer(connection: Connection, jobs: Jobs) -> int:
        return (await jobs.defer_many(connection, [NewJob("mail", {"to": "anu"}, **options)]))[0]

    return shell.given(defer)


def a_dead_letter(shell: Shell) -> int:
    """Leave a failed job and its letter, as the worker does."""

    async def die(connection: Connection, jobs: Jobs) -> int:
        event = str(new_id())
        job = NewJob("event:partners.mail_partner", {"event": event})
        (identifier,) = await jobs.defer_many(connection, [job])
        await connection.execute("SELECT procrastinate_finish_job_v1(%s, 'failed', false)", (identifier,))
        await dead_letters.bury(
            connection,
            job_id=identifier,
            task=job.task,
            queue=job.queue,
            priority=0,
            args=job.args,
            attempts=8,
            error="Traceback …\nMailUndelivered: the server [is] away\n",
        )
        return identifier

    return shell.given(die)


def some_events(shell: Shell, clock: SetClock) -> None:
    async def append(connection: Connection, _: Jobs) -> None:
        for number in range(3):
            await events.append(
                connection,
                stream="partner/1",
                type="partner.registered",
                data={"n": number},
                actor="platform",
                org=None,
                at=clock.now(),
            )

    shell.given(append)


def test_jobs_are_listed_for_people_and_for_programs(shell: Shell) -> None:
    assert "There are no such jobs." in shell.run("jobs", "list").output
    identifier = a_job(shell)
    table = shell.run("jobs", "list").output
    assert '{"to": "anu"}' in table
    assert "waiting" in table
    (job,) = shell.json("jobs", "list", "--status", "waiting", "--task", "mail")
    assert (job["id"], job["task"], job["status"], job["args"]) == (identifier, "mail", "waiting", {"to": "anu"})
    assert shell.json("jobs", "list", "--status", "failed") == []


def test_a_job_is_cancelled_once(shell: Shell) -> None:
    identifier = a_job(shell)
    assert shell.json("jobs", "cancel", str(identifier)) == {"job": identifier, "status": "cancelled"}
    again = shell.run("jobs", "cancel", str(identifier))
    assert again.exit_code == 1
    assert "has ended (cancelled)" in again.output
    assert "There is no job 999" in shell.run("jobs", "cancel", "999").output


def test_a_waiting_job_is_hurried_and_a_failed_one_replayed(shell: Shell, clock: SetClock) -> None:
    later = clock.now().replace(year=2099)
    waiting, failed = a_job(shell, run_at=later), a_dead_letter(shell)
    assert shell.json("jobs", "retry", str(waiting)) == {"job": waiting}
    anew = shell.json("jobs", "retry", str(failed))["job"]
    assert anew not in (waiting, failed)
    assert {job["id"]: job["status"] for job in shell.json("jobs", "list")} == {
        waiting: "waiting",
        failed: "failed",
        anew: "waiting",
    }


def test_dead_letters_are_listed_and_replayed_one_by_one(shell: Shell) -> None:
    assert "There are no dead letters." in shell.run("dead-letters", "list").output
    identifier = a_dead_letter(shell)
    table = shell.run("dead-letters", "list").output
    assert "partners.mail_partner" in table
    assert "the server [is] away" in table
    (letter,) = shell.json("dead-letters", "list")
    assert (letter["job_id"], letter["handler"], letter["attempts"]) == (identifier, "partners.mail_partner", 8)
    assert "Deferred anew: 1 job." in shell.run("dead-letters", "replay", letter["id"]).output
    assert shell.json("dead-letters", "list") == []
    (replayed,) = shell.json("dead-letters", "list", "--replayed")
    assert replayed["replay_job_id"] > identifier
    second = shell.run("dead-letters", "replay", letter["id"])
    assert second.exit_code == 1
    assert "replayed already" in second.output


def test_all_dead_letters_are_replayed_at_once_and_the_log_has_an_event_each(shell: Shell) -> None:
    for _ in range(3):
        a_dead_letter(shell)
    assert len(shell.json("dead-letters", "replay", "--all")["jobs"]) == 3
    lines = shell.run("events", "tail", "--json").output.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["dead_letter.replayed"] * 3


def test_replaying_wants_either_one_letter_or_all(shell: Shell) -> None:
    assert shell.run("dead-letters", "replay").exit_code == 2
    assert shell.run("dead-letters", "replay", str(new_id()), "--all").exit_code == 2


def test_the_tail_of_the_log_is_printed_in_order(shell: Shell, clock: SetClock) -> None:
    assert "Nothing has happened yet." in shell.run("events", "tail").output
    some_events(shell, clock)
    lines = [json.loads(line) for line in shell.run("events", "tail", "-n", "2", "--json").output.splitlines()]
    assert [(event["version"], event["data"]) for event in lines] == [(2, {"n": 1}), (3, {"n": 2})]
    assert "partner/1" in shell.run("events", "tail").output


def test_the_chain_is_verified_and_a_changed_past_is_found(shell: Shell, clock: SetClock) -> None:
    some_events(shell, clock)
    assert "Every hash fits, in 1 stream." in shell.run("events", "verify").output
    with psycopg.connect(shell.owner_dsn) as connection:
        connection.execute("SET session_replication_role = replica")  # past whatever guards the table
        connection.execute("UPDATE events SET data = '{\"n\": 99}' WHERE version = 2")
    broken = shell.run("events", "verify")
    assert broken.exit_code == 1
    assert "partner/1 was changed afterwards: version 2" in broken.output
    assert json.loads(shell.run("events", "verify", "partner/1", "--json").output) == {
        "streams": 1,
        "broken": {"partner/1": 2},
    }


def test_a_handler_is_given_the_past_once(shell: Shell, clock: SetClock) -> None:
    some_events(shell, clock)
    assert shell.json("events", "deliver", "partners.mail_partner") == {"jobs": 3}
    assert shell.json("events", "deliver", "partners.mail_partner") == {"jobs": 0}
    unknown = shell.run("events", "deliver", "partners.nobody")
    assert unknown.exit_code == 2
    assert "partners.mail_operator" in unknown.output
