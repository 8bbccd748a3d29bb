"""Which operation stands at which address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from haat.gateway.doors.anthropic import OPERATIONS as ANTHROPIC
from haat.gateway.doors.anthropic import SHARED
from haat.gateway.doors.feedback import OPERATIONS as FEEDBACK
from haat.gateway.doors.inference.door import OPERATIONS as INFERENCE
from haat.gateway.doors.jobs import OPERATIONS as JOBS
from haat.gateway.doors.native import OPERATIONS as NATIVE
from haat.gateway.doors.openai.door import OPERATIONS as OPENAI
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.passage import OPERATIONS as SPEECH
from haat.gateway.doors.translate import OPERATIONS as TRANSLATE
from haat.gateway.doors.ulca.door import OPERATIONS as ULCA

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_SLASHES = re.compile(rb"/{2,}")
_ELSEWHERE = b"/openai/v1/"
"""Where some hosts have OpenAI's protocol: their clients can be told another host, but no other path."""
_THEIRS = b"anthropic-version:"

Address = tuple[bytes, bytes]
"""A method, and a path. A path that ends with ``/*`` covers whatever begins so."""

DOORS: Mapping[Address, Operation] = {
    **NATIVE,
    **FEEDBACK,
    **TRANSLATE,
    **OPENAI,
    **ANTHROPIC,
    **ULCA,
    **INFERENCE,
    **SPEECH,
    **JOBS,
}


class Doors:
    """The front doors of a gateway. At ``shared`` addresses Anthropic's clients mean something else than OpenAI's."""

    def __init__(
        self, doors: Mapping[Address, Operation] = DOORS, shared: Mapping[Address, Operation] = SHARED
    ) -> None:
        self._doors, self._shared = dict(doors), dict(shared)
        self._told_apart = {self._doors.get(address) for address in shared} | set(shared.values())

    def find(self, method: bytes, target: bytes, lines: Sequence[bytes] = ()) -> Operation | None:
        """Return the operation at a request target, None where no door is; ``lines`` are the request's headers."""
        if not target.startswith(b"/"):
            target = _ABSOLUTE.sub(b"", target, count=1)
        path = target.partition(b"?")[0]
        address = (method, path)
        if address not in self._doors:
            address = self._address(method, path)
        if address in self._shared and any(line[: len(_THEIRS)].lower() == _THEIRS for line in lines):
            return self._shared[address]
        return self._doors.get(address)

    def depends_on_headers(self, operation: Operation) -> bool:
        """Tell whether another operation stands at the same address, for requests with other headers."""
        return operation in self._told_apart

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
