"""Where the compiled form of the hot path is, if there is one.

Some modules are typed Python that mypyc can compile to C extensions; compiled, a call through the
gateway costs about half. The compiled form lies in the environment, in a folder named after the digest
of the modules' names and sources: when one changes it is not found any more, and the interpreter runs
the source as it stands. A process looks once, when it begins. ``make compile`` makes the compiled form;
``HAAT_COMPILED=0`` does without.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import MutableSequence
from functools import cache
from pathlib import Path

MODULES = (
    "gateway/admission",
    "gateway/call",
    "gateway/clock",
    "gateway/dialects/usage",
    "gateway/doors/bodies",
    "gateway/doors/inference/door",
    "gateway/doors/inference/glance",
    "gateway/doors/inference/inference",
    "gateway/doors/inference/message",
    "gateway/doors/inference/place",
    "gateway/doors/inference/tasks",
    "gateway/doors/inner",
    "gateway/doors/names",
    "gateway/doors/openai/embeddings",
    "gateway/doors/ulca/chain",
    "gateway/doors/ulca/content",
    "gateway/doors/ulca/languages",
    "gateway/doors/ulca/services",
    "gateway/doors/ulca/settled",
    "gateway/doors/ulca/tasks",
    "gateway/doors/visit",
    "gateway/extras",
    "gateway/gateway",
    "gateway/http/answers",
    "gateway/http/client",
    "gateway/http/connection",
    "gateway/http/cors",
    "gateway/http/headers",
    "gateway/http/outbox",
    "gateway/http/reader",
    "gateway/http/repeated",
    "gateway/http/trace",
    "gateway/languages",
    "gateway/limits/allowance",
    "gateway/limits/counts",
    "gateway/limits/faces",
    "gateway/limits/pace",
    "gateway/limits/registry",
    "gateway/limits/shared",
    "gateway/limits/shared_allowance",
    "gateway/limits/windows",
    "gateway/market/grants",
    "gateway/market/routes",
    "gateway/metering",
    "gateway/relay",
    "gateway/stages",
    "gateway/units",
    "gateway/upstreams/breaker",
    "gateway/upstreams/connection",
    "gateway/upstreams/dispatch",
    "gateway/upstreams/pool",
    "gateway/upstreams/reader",
    "gateway/upstreams/traffic",
    "infra/inference/tensors",
    "usage/cells",
    "usage/glance",
    "usage/journal",
    "usage/parts",
    "usage/reader",
    "usage/record",
    "usage/rollup",
    "usage/rows",
    "usage/scan",
    "usage/sorting",
    "usage/tail",
)
"""What is compiled, together: a call between two of these is a call between two C functions."""

SOURCE = Path(__file__).parent.parent
HOME = Path(sysconfig.get_path("platlib")) / "haat_compiled"


def folder() -> Path:
    """Return where the compiled form of the present sources is, or would be. Reads them all."""
    return _folder(SOURCE, HOME)


def is_used() -> bool:
    """Tell whether this process runs the compiled form."""
    return str(_settled(SOURCE, HOME)) in sys.path


def use(package: str, path: MutableSequence[str]) -> None:
    """Let a package find its compiled modules first; called by its ``__init__`` with its ``__path__``."""
    if os.environ.get("HAAT_COMPILED") == "0":
        return
    home = _settled(SOURCE, HOME)
    if home.is_dir():
        if str(home) not in sys.path:
            sys.path.append(str(home))
        path.insert(0, str(home / "haat" / package))


def _folder(source: Path, home: Path) -> Path:
    digest = hashlib.sha256()
    for module in MODULES:
        content = (source / module).with_suffix(".py").read_bytes()
        digest.update(f"{module} {len(content)}\n".encode())  # what moves between modules, or is renamed, counts
        digest.update(content)
    return home / f"{sys.implementation.cache_tag}-{digest.hexdigest()[:16]}"


@cache
def _settled(source: Path, home: Path) -> Path:
    """Return the folder that this process has settled on: all its packages run the same form."""
    return _folder(source, home)
