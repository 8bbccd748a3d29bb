"""Which operation stands at which address."""

from __future__ import annotations

import re
from collections.abc import Mapping

from haat.gateway.doors.anthropic import OPERATIONS as ANTHROPIC
from haat.gateway.doors.inference.door import OPERATIONS as INFERENCE
from haat.gateway.doors.native import OPERATIONS as NATIVE
from haat.gateway.doors.openai import OPERATIONS as OPENAI
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.passage import OPERATIONS as SPEECH
from haat.gateway.doors.ulca.door import OPERATIONS as ULCA

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)

Address = tuple[bytes, bytes]
"""A method, and a path. A path that ends with ``/*`` covers whatever begins so."""

DOORS: Mapping[Address, Operation] = {**NATIVE, **OPENAI, **ANTHROPIC, **ULCA, **INFERENCE, **SPEECH}


class Doors:
    """The front doors of a gateway."""

    def __init__(self, doors: Mapping[Address, Operation] = DOORS) -> None:
        self._exact = dict(doors)
        wide = [(method, path[:-1], door) for (method, path), door in doors.items() if path.endswith(b"/*")]
        self._wide = sorted(wide, key=lambda entry: len(entry[1]), reverse=True)

    def find(self, method: bytes, target: bytes) -> Operation | None:
        """Return the operation at a request target, None where no door is."""
        if not target.startswith(b"/"):
            target = _ABSOLUTE.sub(b"", target, count=1)
        path = target.partition(b"?")[0]
        door = self._exact.get((method, path))
        if door is None:
            for wanted, begin, wide in self._wide:
                if wanted == method and path.startswith(begin):
                    return wide
        return door
