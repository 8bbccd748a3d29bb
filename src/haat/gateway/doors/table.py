"""Which operation stands at which address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from haat.gateway.doors.anthropic import OPERATIONS as ANTHROPIC
from haat.gateway.doors.anthropic import SHARED
from haat.gateway.doors.inference.door import OPERATIONS as INFERENCE
from haat.gateway.doors.native import OPERATIONS as NATIVE
from haat.gateway.doors.openai import OPERATIONS as OPENAI
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.passage import OPERATIONS as SPEECH
from haat.gateway.doors.translate import OPERATIONS as TRANSLATE
from haat.gateway.doors.ulca.door import OPERATIONS as ULCA

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_SLASHES = re.compile(rb"/{2,}")
_ELSEWHERE = b"/openai/v1/"
"""Where some hosts have OpenAI's protocol: their clients can be told another host, but no other path."""
_THEIRS = b"anthropic-version:"
_REMEMBERED, _LONGEST = 1024, 300

Address = tuple[bytes, bytes]
"""A method, and a path. A path that ends with ``/*`` covers whatever begins so."""

DOORS: Mapping[Address, Operation] = {**NATIVE, **TRANSLATE, **OPENAI, **ANTHROPIC, **ULCA, **INFERENCE, **SPEECH}


class Doors:
    """The front doors of a gateway. At ``shared`` addresses Anthropic's clients mean something else than OpenAI's."""

    def __init__(
        self, doors: Mapping[Address, Operation] = DOORS, shared: Mapping[Address, Operation] = SHARED
    ) -> None:
        self._doors, self._shared = dict(doors), dict(shared)
        self._lately: dict[Address, Operation] = {}
        """What request targets turned out to mean, whoever asked."""

    def find(self, method: bytes, target: bytes, lines: Sequence[bytes] = ()) -> Operation | None:
        """Return the operation at a request target, None where no door is; ``lines`` are the request's headers."""
        known = self._lately.get((method, target))
        if known is not None:
            return known
        asked = (method, target)
        if not target.startswith(b"/"):
            target = _ABSOLUTE.sub(b"", target, count=1)
        path = target.partition(b"?")[0]
        address = (method, path)
        if address not in self._doors:
            address = self._address(method, path)
        if address in self._shared and any(line[: len(_THEIRS)].lower() == _THEIRS for line in lines):
            return self._shared[address]
        operation = self._doors.get(address)
        if operation is not None and address not in self._shared and len(asked[1]) <= _LONGEST:
            if len(self._lately) >= _REMEMBERED:
                self._lately.clear()
            self._lately[asked] = operation
        return operation

    def _address(self, method: bytes, path: bytes) -> Address:
        """Return the address that a path means which is none as it stands: the nearest above it that covers it."""
        plain = _SLASHES.sub(b"/", path)
        if plain.startswith(_ELSEWHERE):
            plain = plain.removeprefix(b"/openai")
        bare = plain.rstrip(b"/")
        if (method, bare) in self._doors:
            return method, bare
        end = plain.rfind(b"/")
        while end >= 0:
            address = (method, plain[: end + 1] + b"*")
            if address in self._doors:
                return address
            end = plain.rfind(b"/", 0, end)
        return method, plain
