"""PostgreSQL for one machine: the server binaries of a PyPI wheel under our own supervision.

The server listens on a unix socket only and asks everybody for a password (scram-sha-256). It runs
in a session of its own, so it outlives a killed parent; the next `EmbeddedPostgres.start` adopts it.
Each user of the server holds a shared lock, and the last one to stop turns the server off.

As root PostgreSQL refuses to run: it then runs as a system account. When that account can't reach
the data directory, the cluster lives below ``/var/lib/haat``; modes of folders that aren't ours
are never changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from haat.infra.embedded_host import (
    DATABASE,
    OWNER,
    SYSTEM_HOME,
    Account,
    EmbeddedPostgresError,
    account_of,
    cluster_home,
    name_of,
    programs,
    server_account,
    server_environment,
    socket_dir,
)
from haat.infra.keyring import Keyring

_POLL_SECONDS = 0.01

_LEAST_BUFFERS_MB, _MOST_BUFFERS_MB = 128, 1024


def _shared_buffers() -> str:
    """Return a sixteenth of the machine's memory, within bounds: other processes want it too."""
    megabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (16 << 20)
    return f"{min(max(megabytes, _LEAST_BUFFERS_MB), _MOST_BUFFERS_MB)}MB"


_OPTIONS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",  # the folder around it is closed, and everybody needs a password
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": _shared_buffers(),
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "io_method": "sync",  # no I/O worker processes: a small machine has none to spare
    "wal_compression": "on",
    "wal_buffers": "16MB",  # what a large server has: usage comes in transactions of hundreds of megabytes
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "15s",
    "idle_in_transaction_session_timeout": "5min",
    "timezone": "UTC",
    "logging_collector": "on",  # one file a weekday, overwritten a week later
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_min_error_statement": "panic",  # statements and details hold personal data
    "log_error_verbosity": "terse",
}


class EmbeddedPostgres:
    """One cluster below a data directory. Methods block: call them from a thread in async code.

    ``options`` overrides server settings, such as ``fsync`` for tests.
    """

    def __init__(
        self, data_dir: Path, keyring: Keyring, account: str, *, options: Mapping[str, str] | None = None
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._keyring = keyring
        self._account_name = account
        self._options = {**_OPTIONS, **(options or {})}
        self._home: Path | None = None
        self._users: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """The folder of the cluster, its socket and its logs."""
        if self._home is None:
            self._home = cluster_home(self._data_dir, self._keyring, self._account_name)
        return self._home

    @property
    def socket(self) -> Path:
        return socket_dir(self.home, self._keyring)

    @property
    def _cluster(self) -> Path:
        return self.home / "cluster"

    def server_pid(self) -> int | None:
        """Return the process id of our running server, or None. A reused id isn't taken for ours."""
        process = self._running()
        return process.pid if process else None

    def start(self, timeout: float = 60) -> int:
        """Start the server, or adopt the one that runs already; return its process id.

        Raise EmbeddedPostgresError when it is not ready within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._locked():
            account = self._prepare_home()
            command = [str(programs(account) / "postgres"), "-D", str(self._cluster), "-k", str(self.socket)]
            for name, value in self._options.items():
                command += ["-c", f"{name}={value}"]
            running = self._running()
            if running and (self._status() not in ("ready", "starting") or self._differs(running, command)):
                self._end(running, deadline)
                running = None
            if not running:
                if not self._cluster.exists():
                    self._initialise(account)
                (self._cluster / "postmaster.pid").unlink(missing_ok=True)  # a dead server's: its id may be reused
                self._launch(command, account)
            try:
                self._wait_ready(deadline)
                self._create_database()
            except BaseException:
                if running is None and (launched := self._running()):  # nobody else knows of it
                    self._end(launched, time.monotonic() + 5)
                raise
            self._hold()
            running = self._running()
        if running is None:
            raise EmbeddedPostgresError(f"PostgreSQL ended as soon as it had started: read {self.home / 'start.log'}.")
        return running.pid

    def stop(self, timeout: float = 20) -> bool:
        """Stop the server if nobody else uses it; return whether it is down.

        Clients get a third of ``timeout`` (seconds) to leave, transactions the second third to roll
        back; then the server stops at once and recovers at its next start.
        """
        with self._locked():
            if self._users is not None:
                os.close(self._users)
                self._users = None
            running = self._running()
            if running is None:
                return True
            with self._users_file() as descriptor:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                self._end(running, time.monotonic() + timeout)
        return True

    def is_stuck(self) -> bool:
        """Tell whether the server runs, answers nobody, and is not about to.

        Its own processes killed one after another can leave it waiting for a recovery that nobody makes. A
        server that does start or recover has a process for it, and is left to it however long that takes.
        """
        running = self._running()
        if running is None or self._answers():
            return False
        try:
            children = running.children()
        except psutil.NoSuchProcess:
            return False
        return not any(_title(child).startswith("postgres: startup") for child in children)

    def replace(self, timeout: float = 60) -> int:
        """Kill a stuck server with all its processes and start another; return its process id."""
        with self._locked():
            running = self._running()
            if running is not None:
                family = [running, *running.children(recursive=True)]  # it first: it must start no more
                for process in family:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                psutil.wait_procs(family, timeout / 2)
        return self.start(timeout)

    # --- the pieces ---------------------------------------------------------------------------

    def _answers(self) -> bool:
        import psycopg  # not at the top: the command line imports this module without needing a driver

        try:
            psycopg.connect(
                host=str(self.socket),
                user=OWNER,
                password=self._keyring.role_password(OWNER),
                dbname="postgres",
                connect_timeout=2,
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    def _prepare_home(self) -> Account:
        """Make our folders, owned by the server's account, and return that account."""
        account = server_account(self._account_name)
        if self._cluster.exists():
            owner = self._cluster.stat().st_uid
            if owner != account.uid and os.geteuid() != 0:
                raise EmbeddedPostgresError(
                    f"The database in {self._cluster} belongs to {name_of(owner)}: start Haat as {name_of(owner)} "
                    "or as root, or choose another --data-dir."
                )
            account = account_of(owner)
        if self.home.is_relative_to(SYSTEM_HOME) or self.socket.is_relative_to(SYSTEM_HOME):
            SYSTEM_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
            SYSTEM_HOME.chmod(0o755)
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o711 if account.switch else 0o700)  # ours: the account owns only what lies in it
        self._closed_folder(self.socket, account)
        if account.switch and not account.reaches(self.home):
            raise EmbeddedPostgresError(
                f"The account {account.name}, which PostgreSQL runs as, can't reach {self.home}: "
                "let it pass the folders above (chmod o+x), or choose another --data-dir."
            )
        return account

    @staticmethod
    def _closed_folder(folder: Path, account: Account) -> None:
        """Make a folder that only the server's account (and root) may enter."""
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (account.uid, os.geteuid()):
            raise EmbeddedPostgresError(f"{folder} belongs to somebody else: remove it and start again.")
        if found.st_uid != account.uid:
            os.chown(folder, account.uid, account.gid)
        folder.chmod(0o700)

    def _initialise(self, account: Account) -> None:
        """Make the cluster beside its place and move it there whole."""
        fresh, password = self.home / "cluster.new", self.home / "password"
        shutil.rmtree(fresh, ignore_errors=True)
        self._closed_folder(fresh, account)
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(self._keyring.role_password(OWNER))
        if account.switch:
            os.chown(password, account.uid, account.gid)
        try:
            made = subprocess.run(
                [
                    str(programs(account) / "initdb"),
                    f"--pgdata={fresh}",
                    f"--username={OWNER}",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--encoding=UTF8",
                    "--no-instructions",
                ],
                cwd=self.home,
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                **account.switch,
            )
        finally:
            password.unlink()
        if made.returncode:
            raise EmbeddedPostgresError(f"PostgreSQL could not be set up in {fresh}: {made.stderr.strip()}")
        (fresh / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        fresh.rename(self._cluster)

    def _launch(self, command: list[str], account: Account) -> None:
        with (self.home / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.home,
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for us, not for it
                **account.switch,
            )
        # The server may outlive this object: whenever it ends, somebody reads its exit status.
        threading.Thread(target=self._process.wait, name="postgres-reaper", daemon=True).start()

    def _wait_ready(self, deadline: float) -> None:
        while self._status() != "ready":
            if self._process is not None and self._process.poll() is not None:
                reason = (self.home / "start.log").read_text(errors="replace").strip()
                raise EmbeddedPostgresError(f"PostgreSQL did not start: {reason or 'it gave no reason'}")
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL was not ready in time: look into {self._cluster / 'log'} and start again."
                )
            time.sleep(_POLL_SECONDS)

    def _create_database(self) -> None:
        import psycopg  # not at the top: the command line imports this module without needing a driver

        try:
            with psycopg.connect(
                host=str(self.socket),
                user=OWNER,
                password=self._keyring.role_password(OWNER),
                dbname="postgres",
                autocommit=True,
            ) as connection:
                known = connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
                if known is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError as error:
            if "password authentication failed" not in str(error):
                raise
            raise EmbeddedPostgresError(
                f"The database in {self._cluster} was made under another master key: "
                f"bring back {self._data_dir / 'secrets/master.key'} or choose another --data-dir."
            ) from error

    def _end(self, process: psutil.Process, deadline: float) -> None:
        """Stop the server: smart, then fast, then immediate, each with a share of the time left."""
        left = max(deadline - time.monotonic(), 0.3)
        for number, share in ((signal.SIGTERM, left / 3), (signal.SIGINT, left / 3), (signal.SIGQUIT, left / 3)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
            until = time.monotonic() + share
            while time.monotonic() < until:
                if not _alive(process):
                    return
                time.sleep(_POLL_SECONDS)
        raise EmbeddedPostgresError(f"PostgreSQL (process {process.pid}) does not stop: end it with `kill -9`.")

    def _running(self) -> psutil.Process | None:
        """Return our server's process: the one named in postmaster.pid, if it works in our cluster."""
        lines = self._pid_file()
        if not lines or not lines[0].strip().isdigit():
            return None
        try:
            process = psutil.Process(int(lines[0]))
            ours = Path(process.cwd()) == self._cluster.resolve() and "postgres" in process.name()
        except psutil.Error:
            return None
        return process if ours and _alive(process) else None

    def _status(self) -> str:
        """Return what the server says of itself in the 8th line of its file: ready, starting, stopping."""
        lines = self._pid_file()
        return lines[7].strip() if len(lines) > 7 else "starting" if lines else "absent"

    def _pid_file(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    @staticmethod
    def _differs(process: psutil.Process, command: list[str]) -> bool:
        """Tell whether an orphan runs another version or other settings than we would start."""
        try:
            return process.cmdline() != command
        except psutil.NoSuchProcess:
            return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time start or stop the server."""
        folder = self._data_dir / "run"
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _users_file(self) -> Iterator[int]:
        descriptor = os.open(self._data_dir / "run" / "postgres.users", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _hold(self) -> None:
        """Count ourselves among the server's users; the kernel forgets us even after a SIGKILL."""
        if self._users is None:
            self._users = os.open(self._data_dir / "run" / "postgres.users", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._users, fcntl.LOCK_SH)


@contextlib.contextmanager
def running(data_dir: Path, keyring: Keyring, account: str, stop_seconds: float = 20) -> Iterator[EmbeddedPostgres]:
    """Keep the server running for the length of a block."""
    server = EmbeddedPostgres(data_dir, keyring, account)
    server.start()
    try:
        yield server
    finally:
        server.stop(stop_seconds)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # also a dead one that its parent has not looked at yet
        return ""
