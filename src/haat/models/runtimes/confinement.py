"""What a worker must not do, taken from its process before it opens a model. `docs/models.md` says what holds where.

The engine starts a worker with `environment_of` as its environment, and the worker calls `confine` first of all.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from haat.kernel.errors import EngineMissing
from haat.models.manifest import Manifest
from haat.models.runtimes.http import NETWORKS
from haat.models.runtimes.sandbox import NotPossible, drop_capabilities, hide_files, refuse_calls

MIB = 1024 * 1024
FILES = 256
CHILDREN = 64
"""Processes that the account of a command's worker may have beside those it has at its start. Not counted for root."""
NICENESS = 5
_ADDRESSES = 8 * 1024 * MIB
"""Address space beyond ``memory_mb``: libraries reserve much that they never use."""
_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix", "/gnu", "/proc", "/sys/devices/system/cpu",
    "/sys/fs/cgroup", "/dev/urandom", "/dev/random", "/dev/zero", "/etc/alternatives", "/etc/fonts", "/etc/group",
    "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types",
    "/etc/nsswitch.conf", "/etc/passwd", "/etc/resolv.conf", "/etc/ssl", "/etc/timezone",
    "/etc/apertium", "/etc/espeak-data",
)  # fmt: skip
_KEPT = ("PATH", "LANG", "LANGUAGE", "TZ", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SOCKETS = {"socket.__new__", "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.sendmsg"}

log = logging.getLogger(__name__)


def environment_of(
    manifest: Manifest, work: Path, given: Mapping[str, str] | None = None, networks: Iterable[str] = ()
) -> dict[str, str]:
    """Return the environment of a model's worker: none of the platform's settings, secrets and credentials.

    ``work`` is its private folder, for temporary files, too; ``networks`` are those that are not public and that a
    model with ``network`` may reach all the same.
    """
    given = os.environ if given is None else given
    kept = {name: given[name] for name in _KEPT if name in given}
    own = {"HOME": str(work), "TMPDIR": str(work), "XDG_CACHE_HOME": str(work), "LC_ALL": "C.UTF-8"}
    python = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    reachable = {NETWORKS: ",".join(networks)} if manifest.network else {}
    return {**kept, **own, **python, **reachable, **manifest.environment}


def confine(manifest: Manifest, folder: Path, work: Path) -> list[str]:
    """Confine this process, and return what does not hold on this machine, each as a sentence.

    Memory, open files and, for commands, processes are bounded; ``work`` (made if need be) is the working
    folder and the only one that can be written; of other files only the system's, Python's and ``folder`` can be
    read; there is no network unless the manifest has it, and only a command starts processes. Root gives up all
    its capabilities. Raise EngineMissing when a program can't be kept from the network here.
    """
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chdir(work)
    is_command = manifest.runtime == "command"
    _limit(manifest.memory_mb, is_command)
    weak = []
    try:
        hide_files(_readable(folder), [work, Path("/dev/null"), Path("/dev/tty")])
    except NotPossible as error:
        weak.append(f"The model can read what its account can read ({error.strerror}).")
    try:
        drop_capabilities()
    except NotPossible as error:
        weak.append(f"The model has what root may do ({error.strerror}).")
    try:
        refuse_calls(network=manifest.network, processes=is_command)
    except NotPossible as error:
        if not manifest.network:
            weak.append(_without_seccomp(is_command, error))
    for sentence in weak:
        log.warning("%s", sentence)
    return weak


def _without_seccomp(is_command: bool, error: NotPossible) -> str:
    if is_command:
        raise EngineMissing(
            f"A program can't be kept from the network here ({error.strerror}): say `network: true` if it may have it."
        ) from error
    sys.addaudithook(_refuse_sockets)
    return f"Only Python's own sockets are kept from the model, not those of native code ({error.strerror})."


def _refuse_sockets(event: str, _: tuple[Any, ...]) -> None:
    if event in _SOCKETS:
        raise PermissionError("this model has no network: its file must say `network: true`")


def _limit(memory_mb: int, is_command: bool) -> None:
    memory = memory_mb * MIB
    _lower(resource.RLIMIT_DATA, memory)
    _lower(resource.RLIMIT_AS, memory + _ADDRESSES)
    _lower(resource.RLIMIT_NOFILE, FILES)
    _lower(resource.RLIMIT_CORE, 0)
    if is_command:
        _lower(resource.RLIMIT_NPROC, _processes_of_account() + CHILDREN)
    os.nice(NICENESS)


def _lower(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _processes_of_account() -> int:
    """Count threads, as the kernel does."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if status.stat().st_uid == os.getuid():
                count += sum(1 for _ in (status.parent / "task").iterdir())
        except OSError:
            continue  # it has ended
    return count


def _readable(folder: Path) -> list[Path]:
    """Return where Python and the system are, and the model: never a folder that holds the model's among others."""
    python = {Path(place) for place in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path) if place}
    python |= {Path(place) for place in sysconfig.get_paths().values()}
    python |= {Path(sys.executable).resolve().parent, Path(__file__).resolve().parents[2]}
    inside = [place for place in python if not folder.resolve().is_relative_to(place.resolve())]
    return [*map(Path, _SYSTEM), *inside, folder]
