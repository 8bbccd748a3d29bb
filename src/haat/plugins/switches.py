"""Which plugins are switched on: a small file that commands write and every gateway watches."""

from __future__ import annotations

import fcntl
from pathlib import Path

import msgspec

from haat.kernel.errors import Conflict


class Switch(msgspec.Struct, frozen=True, omit_defaults=True):
    """``closed`` is what the plugin declared when it was switched on: a guard stays one when its code is gone."""

    on: bool
    closed: bool = False


class Switches(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file's content. A plugin that isn't named is on if it came as a package, else off."""

    plugins: dict[str, Switch] = {}
    revision: int = 0
    """Counts up with each change, and when a reload is asked for."""


class UnreadableSwitches(Conflict):
    """The file exists and can't be understood: whoever reads it keeps to what it knew."""


_decoder = msgspec.json.Decoder(Switches)


def switches_path(data_dir: Path) -> Path:
    return data_dir / "gateway" / "plugins.json"


def read(path: Path) -> Switches:
    """Return what the file says, or nothing said when there is none; raise UnreadableSwitches."""
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return Switches()
    except (msgspec.MsgspecError, OSError) as error:
        raise UnreadableSwitches(f"{path} can't be read: {error}") from error


def write(path: Path, name: str | None = None, switch: Switch | None = None) -> int:
    """Set one switch, or none to ask for a reload; return the revision that the gateways will confirm."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    with path.with_name(f"{path.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two who switch at once, the second sees what the first has done
        present = read(path)
        plugins = {**present.plugins, name: switch} if name is not None and switch is not None else present.plugins
        revision = present.revision + 1
        fresh.write_bytes(msgspec.json.encode(Switches(plugins, revision)))
        fresh.replace(path)
    return revision


def stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes whenever the file does; zeros when there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size
