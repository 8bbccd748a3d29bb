"""The embedded PostgreSQL: started once, shared, adopted from a dead parent, stopped by the last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from haat.infra import embedded, embedded_host
from haat.infra.dsn import dsn_for
from haat.infra.embedded import EmbeddedPostgres
from haat.infra.embedded_host import OWNER, EmbeddedPostgresError, cluster_home, socket_dir
from haat.infra.keyring import Keyring
from haat.infra.prepare import prepare_database
from haat.settings import Settings

ACCOUNT = "haat-postgres"
QUICK = {"fsync": "off", "shared_buffers": "16MB"}


@pytest.fixture(scope="session")
def made_cluster(short_tmp: Path) -> Path:
    """A cluster after its first start and stop: making one takes longer than most of these tests."""
    server = EmbeddedPostgres(short_tmp / "made", Keyring(bytes(range(32))), ACCOUNT, options=QUICK)
    server.start()
    server.stop(3)
    return server.home / "cluster"


@pytest.fixture
def new_server_of(data_dir: Path, keyring: Keyring) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Make servers on one data directory without a cluster, and leave none running."""
    made: list[EmbeddedPostgres] = []

    def make(**options: str) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(data_dir, keyring, ACCOUNT, options=QUICK | options))
        return made[-1]

    yield make
    for server in made:
        server.stop(3)


@pytest.fixture
def server_of(
    new_server_of: Callable[..., EmbeddedPostgres], made_cluster: Path, data_dir: Path
) -> Callable[..., EmbeddedPostgres]:
    """The same with a cluster, its owner's as it was."""
    (data_dir / "postgres").mkdir()
    subprocess.run(["cp", "-a", made_cluster, data_dir / "postgres"], check=True)
    return new_server_of


def query(server: EmbeddedPostgres, statement: str, password: str) -> object:
    with psycopg.connect(host=str(server.socket), user=OWNER, password=password, dbname="haat") as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]


def keep_a_row(server: EmbeddedPostgres, password: str) -> None:
    with psycopg.connect(host=str(server.socket), user=OWNER, password=password, dbname="haat") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_starting_twice_finds_the_same_server_and_stopping_ends_it(
    new_server_of: Callable[..., EmbeddedPostgres],
) -> None:
    server = new_server_of()
    first = server.start()
    assert server.start() == first
    assert server.stop()
    assert server.server_pid() is None
    until(lambda: not psutil.pid_exists(first))  # a thread reads its exit status
    assert server.stop(), "stopping what is stopped changes nothing"


def test_data_outlives_a_restart(server_of: Callable[..., EmbeddedPostgres], keyring: Keyring) -> None:
    server = server_of()
    password = keyring.role_password(OWNER)
    server.start()
    keep_a_row(server, password)
    server.stop()
    server.start()
    assert query(server, "SELECT n FROM kept", password) == 7


def test_two_who_start_at_once_agree_on_one_server(new_server_of: Callable[..., EmbeddedPostgres]) -> None:
    one, other = new_server_of(), new_server_of()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda server: server.start(), (one, other))
    assert first == second


def test_the_server_stays_until_its_last_user_stops(server_of: Callable[..., EmbeddedPostgres]) -> None:
    one, other = server_of(), server_of()
    pid = one.start()
    assert other.start() == pid
    assert not one.stop(), "somebody else still uses it"
    assert other.server_pid() == pid
    assert other.stop()
    assert other.server_pid() is None


def start_in_a_process_and_kill_it(data_dir: Path, **options: str) -> int:
    """Start the server from another process, SIGKILL that one, and return the server's process id."""
    program = (
        "import sys, time, json; from pathlib import Path\n"
        "from haat.infra.embedded import EmbeddedPostgres; from haat.infra.keyring import Keyring\n"
        "server = EmbeddedPostgres(Path(sys.argv[1]), Keyring(bytes(range(32))), 'haat-postgres',"
        " options=json.loads(sys.argv[2]))\n"
        "print(server.start(), flush=True); time.sleep(60)\n"
    )
    options_text = str(QUICK | options).replace("'", '"')
    with subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir), options_text], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    return pid


def test_an_orphan_of_a_killed_parent_is_adopted_and_can_be_stopped(
    server_of: Callable[..., EmbeddedPostgres], data_dir: Path
) -> None:
    orphan = start_in_a_process_and_kill_it(data_dir)
    server = server_of()
    assert server.server_pid() == orphan
    assert server.start() == orphan
    assert server.stop()
    assert server.server_pid() is None


def test_an_orphan_with_other_settings_is_replaced(
    server_of: Callable[..., EmbeddedPostgres], data_dir: Path, keyring: Keyring
) -> None:
    orphan = start_in_a_process_and_kill_it(data_dir, work_mem="3MB")
    server = server_of(work_mem="5MB")
    assert server.start() != orphan
    assert query(server, "SHOW work_mem", keyring.role_password(OWNER)) == "5MB"


def test_a_server_killed_with_sigkill_recovers_at_the_next_start(
    server_of: Callable[..., EmbeddedPostgres], keyring: Keyring
) -> None:
    server = server_of()
    pid = server.start()
    keep_a_row(server, keyring.role_password(OWNER))
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.server_pid() is None)
    assert server.start() != pid
    assert query(server, "SELECT n FROM kept", keyring.role_password(OWNER)) == 7


def test_a_server_that_answers_nobody_is_known_as_stuck_and_replaced(
    server_of: Callable[..., EmbeddedPostgres], keyring: Keyring
) -> None:
    server = server_of()
    assert not server.is_stuck(), "there is none"
    pid = server.start()
    keep_a_row(server, keyring.role_password(OWNER))
    assert not server.is_stuck()
    os.kill(pid, signal.SIGSTOP)
    assert server.is_stuck()
    assert server.replace() != pid
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert query(server, "SELECT n FROM kept", keyring.role_password(OWNER)) == 7


def test_a_process_that_only_inherited_the_servers_id_is_left_alone(
    server_of: Callable[..., EmbeddedPostgres],
) -> None:
    server = server_of()
    server.start()
    server.stop()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (server.home / "cluster" / "postmaster.pid").write_text(f"{stranger.pid}\n{server.home}/cluster\n")
        assert server.server_pid() is None
        server.start()
        assert stranger.poll() is None
        stranger.kill()


def test_stopping_does_not_wait_for_an_idle_client_beyond_its_deadline(
    server_of: Callable[..., EmbeddedPostgres], keyring: Keyring
) -> None:
    server = server_of()
    server.start()
    with psycopg.connect(
        host=str(server.socket), user=OWNER, password=keyring.role_password(OWNER), dbname="haat"
    ) as connection:
        connection.execute("SELECT 1")
        began = time.monotonic()
        assert server.stop(1.5)
        assert time.monotonic() - began < 3
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_nobody_gets_in_without_the_password(server_of: Callable[..., EmbeddedPostgres]) -> None:
    server = server_of()
    server.start()
    for password in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError):
            query(server, "SELECT 1", password)


def test_the_server_listens_on_its_socket_only_and_the_socket_lies_in_a_closed_folder(
    server_of: Callable[..., EmbeddedPostgres], keyring: Keyring
) -> None:
    server = server_of()
    pid = server.start()
    assert query(server, "SHOW listen_addresses", keyring.role_password(OWNER)) == ""
    assert psutil.Process(pid).net_connections("inet") == []
    assert server.socket.stat().st_mode & 0o077 == 0


def test_text_sorts_and_folds_by_unicode_without_the_machines_locale(
    server_of: Callable[..., EmbeddedPostgres], keyring: Keyring
) -> None:
    server = server_of()
    server.start()
    password = keyring.role_password(OWNER)
    assert query(server, "SELECT upper('éß') || lower('ÀΣ')", password) == "Ésàσ".replace("És", "Éß")
    assert query(server, "SELECT datlocale FROM pg_database WHERE datname = current_database()", password) == "C.UTF-8"


def test_another_master_key_is_told_what_is_wrong(server_of: Callable[..., EmbeddedPostgres], data_dir: Path) -> None:
    server_of().start()
    with pytest.raises(EmbeddedPostgresError, match="another master key"):
        EmbeddedPostgres(data_dir, Keyring(bytes(32)), ACCOUNT, options=QUICK).start()


def test_a_start_that_fails_leaves_no_server_behind(server_of: Callable[..., EmbeddedPostgres], data_dir: Path) -> None:
    server = server_of()
    server.start()
    assert server.stop()
    stranger = EmbeddedPostgres(data_dir, Keyring(bytes(32)), ACCOUNT, options=QUICK)
    with pytest.raises(EmbeddedPostgresError, match="another master key"):
        stranger.start()
    assert stranger.server_pid() is None


def test_a_server_that_can_not_start_says_why(server_of: Callable[..., EmbeddedPostgres]) -> None:
    server_of().start()
    server_of().stop()
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        server_of(no_such_setting="1").start()


def test_an_interrupted_set_up_is_begun_again(new_server_of: Callable[..., EmbeddedPostgres], data_dir: Path) -> None:
    half_made = data_dir / "postgres" / "cluster.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18")
    assert new_server_of().start()


def test_a_long_data_directory_gets_a_socket_with_a_short_name(keyring: Keyring) -> None:
    home = Path("/srv") / ("a" * 100) / "postgres"
    assert len(str(socket_dir(home, keyring) / ".s.PGSQL.5432")) <= 107
    assert socket_dir(home, keyring) == socket_dir(home, keyring)
    assert socket_dir(Path("/srv/b/postgres"), keyring) == Path("/srv/b/postgres/socket")


def test_below_a_closed_folder_the_cluster_moves_out_and_no_mode_changes(
    short_tmp: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = Path(tempfile.mkdtemp(dir=short_tmp))
    system_home = short_tmp / "system-home"
    monkeypatch.setattr(embedded, "SYSTEM_HOME", system_home)
    monkeypatch.setattr(embedded_host, "SYSTEM_HOME", system_home)
    assert closed.stat().st_mode & 0o777 == 0o700
    server = EmbeddedPostgres(closed / "data", keyring, ACCOUNT, options=QUICK)
    server.start()
    try:
        if os.geteuid() == 0:
            assert server.home.parent == system_home
        else:  # the server is ours, and what is closed to others is open to it
            assert server.home == closed / "data" / "postgres"
        assert closed.stat().st_mode & 0o777 == 0o700
        assert cluster_home(closed / "data", keyring, ACCOUNT) == server.home
        assert psutil.Process(server.server_pid()).uids().real != 0
    finally:
        server.stop(3)


def test_programs_in_a_closed_folder_are_copied_to_where_the_account_reaches_them(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system_home = short_tmp / "system-programs"
    monkeypatch.setattr(embedded_host, "SYSTEM_HOME", system_home)
    account = embedded_host.server_account(ACCOUNT)
    monkeypatch.setattr(
        embedded_host.Account, "reaches", lambda self, path: path.is_relative_to(system_home) and path.exists()
    )
    folder = embedded_host.programs(account)
    assert folder.is_relative_to(system_home)
    for program in ("postgres", "initdb"):  # the second needs a library that lies outside of its folder
        version = subprocess.run(
            [folder / program, "--version"], cwd="/", capture_output=True, text=True, check=True, **account.switch
        )
        assert "(PostgreSQL) 18" in version.stdout
    assert embedded_host.programs(account) == folder
    assert [path.name for path in system_home.iterdir()] == [folder.relative_to(system_home).parts[0]]


def test_every_role_logs_in_after_the_database_is_prepared(
    server_of: Callable[..., EmbeddedPostgres], data_dir: Path, keyring: Keyring
) -> None:
    server_of().start()
    settings = Settings(data_dir=data_dir)
    prepare_database(settings, keyring)
    prepare_database(settings, keyring)
    for role in ("owner", "app", "service"):
        with psycopg.connect(dsn_for(settings, keyring, role)) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (f"haat_{role}",)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://admin:s%40crat@db.example:6432/market?sslmode=require",
        "host=db.example port=6432 dbname=market sslmode=require user=admin password=s@crat",
    ],
)
def test_a_given_database_keeps_its_place_and_changes_its_role(keyring: Keyring, url: str) -> None:
    settings = Settings(database_url=url)
    app = psycopg.conninfo.conninfo_to_dict(dsn_for(settings, keyring, "app"))
    assert app == {
        "host": "db.example",
        "port": "6432",
        "dbname": "market",
        "sslmode": "require",
        "user": "haat_app",
        "password": keyring.role_password("haat_app"),
    }
    assert psycopg.conninfo.conninfo_to_dict(dsn_for(settings, keyring, "owner"))["user"] == "admin"
