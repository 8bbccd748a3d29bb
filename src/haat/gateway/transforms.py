"""A version's changes to requests and answers, compiled once a route: adapters keep an old shape working.

Bodies are changed only where they are JSON, with every number written as it came. Of answers only good
ones change their body: an error is not of the shape that the changes are about.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import msgspec

from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import coding_of, without
from haat.gateway.market.policy import Transform
from haat.gateway.market.routes import refusing
from haat.kernel.errors import HaatError, InvalidRequest, MalformedJson, ProviderFailed
from haat.kernel.reshaping import Change, Do, Misshapen, check, compile_change
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route, Step

_HEADERS = ("set_header", "remove_header")
_STALE = (b"content-encoding", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"etag", b"last-modified")
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Program:
    """The changes of one direction. Raise ValueError for those that can't be made (the control plane refuses them)."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self._set: list[bytes] = []
        names: set[bytes] = set()
        self._changes: list[Change] = []
        for transform in transforms:
            do = cast(Do, transform.do)
            if do not in _HEADERS:
                self._changes.append(compile_change(do, transform.path, transform.to, transform.value))
                continue
            check(do, transform.path, transform.to, transform.value)
            name = transform.path.lower().encode("ascii")
            names.add(name)
            self._set = without(self._set, (name,))
            if do == "set_header":
                self._set.append(f"{transform.path}: {transform.value}\r\n".encode("ascii"))
        self._names = frozenset(names)

    @property
    def changes_bodies(self) -> bool:
        return bool(self._changes)

    def change_lines(self, lines: list[bytes]) -> list[bytes]:
        """Return the header lines as they should be."""
        return [*without(lines, self._names), *self._set] if self._names else lines

    def change_body(self, body: bytes) -> bytes:
        """Return a JSON body as it should be; raise Misshapen, or msgspec.DecodeError when it is none."""
        document = _decode(body)
        for change in self._changes:
            change(document)
        return bytes(_encode(document))


def transforms_step(gateway: Gateway, route: Route) -> Step | None:
    """Return what a route's version does to its calls, or None when it does nothing."""
    policy = route.version.policy
    if not policy.request and not policy.answer:
        return None
    try:
        request, answer = Program(policy.request), Program(policy.answer)
    except ValueError as error:  # written by a newer control plane, or past ours
        return refusing(InvalidRequest(f"Version {route.version.version} can't be called here: {error}."))
    shapes_answers = bool(policy.answer)
    version = route.version.version

    def step(gateway: Gateway, call: Call) -> bool:
        if request.changes_bodies and _is_json(call.lines):
            _change_request(call, request, version)
        call.lines = request.change_lines(call.lines)
        if shapes_answers:
            call.lines = without(call.lines, (b"accept-encoding",))
            call.on_answer = [*call.on_answer, _Reshaped(answer)]
        return True

    return step


def _change_request(call: Call, program: Program, version: str) -> None:
    body = b"".join(call.body)
    if not body:
        return
    with _explained(
        lambda sentence: InvalidRequest(f"The request is not of the shape of version {version}: {sentence}.")
    ):
        try:
            call.body = [program.change_body(unfold(body, coding_of(call.lines)))]
        except msgspec.DecodeError as error:
            raise MalformedJson from error
    call.lines = without(call.lines, _STALE)


class _Reshaped:
    """Brings an answer back into the shape of the version that was asked for."""

    __slots__ = ("_program",)

    def __init__(self, program: Program) -> None:
        self._program = program

    def answered(self, call: Call, answer: Whole) -> None:
        answer.lines = self._program.change_lines(answer.lines)
        if not (self._program.changes_bodies and 200 <= answer.status < 300 and answer.body and _is_json(answer.lines)):
            return
        with _explained(lambda sentence: ProviderFailed(f"The provider's answer can't be adapted: {sentence}.")):
            try:
                answer.body = self._program.change_body(unfold(answer.body, coding_of(answer.lines)))
            except msgspec.DecodeError as error:
                raise ProviderFailed(
                    "The provider's answer says that it is JSON and isn't; it can't be adapted."
                ) from error
        answer.lines = without(answer.lines, _STALE)

    def missed(self, call: Call) -> None:
        """Nothing was promised to anybody."""


@contextlib.contextmanager
def _explained(problem: Callable[[str], HaatError]) -> Iterator[None]:
    try:
        yield
    except (Misshapen, Unreadable) as error:
        raise problem(str(error)) from error
    except RecursionError as error:
        raise problem("it is nested too deep") from error


def _is_json(lines: list[bytes]) -> bool:
    """Tell whether these headers announce JSON; a body that says nothing is taken for it."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
            return kind == b"application/json" or kind.endswith(b"+json")
    return True
