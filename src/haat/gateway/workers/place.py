"""A worker's place among its siblings: its slot, and the listening sockets it was given.

Whoever starts several workers (`haat serve`, `haat gateway --workers`) opens one listening socket a
slot, all on the same port, and keeps them open. So the connections that wait in a killed worker's queue
are not reset: they wait for whoever accepts from it next.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

BACKLOG = 4096
_SLOT, _LISTENERS = "HAAT_GATEWAY_SLOT", "HAAT_GATEWAY_LISTENERS"


@dataclass(frozen=True, slots=True)
class Place:
    """``listeners`` are descriptors by slot; without any, the worker opens a socket of its own."""

    slot: int = 0
    listeners: tuple[int, ...] = ()

    @property
    def workers(self) -> int:
        return len(self.listeners) or 1

    @property
    def worker(self) -> str:
        """A slot's name, not a process's: the successor in the slot inherits its journal."""
        return f"gateway-{self.slot}"

    def environment(self) -> dict[str, str]:
        """Return the variables that tell a child its place; it must inherit the descriptors, too."""
        return {_SLOT: str(self.slot), _LISTENERS: ",".join(map(str, self.listeners))}


ALONE = Place()


def given_place(environment: Mapping[str, str]) -> Place | None:
    """Return the place that a parent process gave, or None for a process on its own."""
    if _SLOT not in environment:
        return None
    listeners = environment.get(_LISTENERS, "")
    return Place(int(environment[_SLOT]), tuple(map(int, listeners.split(","))) if listeners else ())


def open_listeners(host: str, port: int, workers: int) -> list[socket.socket]:
    """Open a listening socket for each worker, on one port; 0 takes a free one. Raise OSError.

    A single socket is not open to sharing, so that a second platform on the port is refused.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened: list[socket.socket] = []
    try:
        for _ in range(workers):
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=workers > 1)
            opened.append(listener)
            port = listener.getsockname()[1]
    except OSError:
        for listener in opened:
            listener.close()
        raise
    return opened


class Ready(msgspec.Struct, frozen=True):
    """What a worker says of itself on disk while it takes calls."""

    port: int
    pid: int


class ReadyFiles:
    """``ready-<slot>.json`` is there while that worker takes calls, ``ready.json`` once all of them do."""

    def __init__(self, home: Path, place: Place) -> None:
        self._all = home / "ready.json"
        self._each: Sequence[Path] = [home / f"ready-{slot}.json" for slot in range(place.workers)]
        self._own = self._each[place.slot]

    def withdraw(self) -> None:
        """Say that this worker takes no calls; also for a predecessor that was killed."""
        self._all.unlink(missing_ok=True)
        self._own.unlink(missing_ok=True)

    def announce(self, ready: Ready) -> None:
        """Say that this worker takes calls; the last one says that all do."""
        content = msgspec.json.encode(ready)
        _replace(self._own, content)
        if all(self.of(slot) is not None for slot in range(len(self._each))):
            _replace(self._all, content)

    def of(self, slot: int) -> Ready | None:
        """Return what the worker in a slot says, or None while it takes no calls."""
        try:
            return msgspec.json.decode(self._each[slot].read_bytes(), type=Ready)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)
