"""What a plugin's author imports: the marker, the base class, and what may be seen and changed of a call.

These names stay as they are between versions of the gateway; its own objects don't. ``docs/plugins.md``
tells how a plugin is written, placed and switched on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import pluggy
from pydantic import BaseModel, ConfigDict

from haat.plugins import text
from haat.plugins.text import Change, Unreadable

__all__ = [
    "Answer", "Arrival", "Change", "Configuration", "Event", "Headers", "NoConfiguration", "Plugin", "Request",
    "Service", "Unreadable", "Usage", "hookimpl", "hookspec",
]  # fmt: skip

PROJECT = "haat"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_FRAMING = frozenset(
    b"connection content-length expect host keep-alive te trailer transfer-encoding upgrade x-request-id".split()
)


class Configuration(BaseModel):
    """What ``[plugins.<name>]`` in the settings file says; a member nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoConfiguration(Configuration):
    """For plugins that have nothing to configure."""


class Plugin:
    """Base class. Made once when the plugin is switched on, with its configuration; closed when it is taken out.

    ``order`` places it among the others (the built-in stages carry numbers too, `haat plugins list`
    shows them); ``before`` and ``after`` name plugins or stages and win over numbers. ``requires``
    names plugins that must run, and run earlier. A hook that raises anything but a `HaatError` has
    failed: with ``fails = "open"`` the call goes on as if the plugin were not there, with
    ``"closed"`` it is refused. A hook that takes longer than ``slow_ms`` is warned about: hooks run
    on the gateway's own loop and must never wait for anything.
    """

    summary: ClassVar[str] = ""
    order: ClassVar[int] = 500
    before: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    fails: ClassVar[Literal["open", "closed"]] = "open"
    slow_ms: ClassVar[float] = 5.0
    Configuration: ClassVar[type[BaseModel]] = NoConfiguration

    def __init__(self, configuration: Any) -> None:
        self.configuration = configuration

    def close(self) -> None:
        """Give back what the plugin holds; no call uses it any more."""


class Headers:
    """The headers of a message. Names are compared without regard to case; framing is not theirs."""

    __slots__ = ("lines",)

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for line in self.lines:
            name, _, value = line.partition(b":")
            yield name.decode("latin-1"), value.strip().decode("latin-1")

    def __contains__(self, name: str) -> bool:
        return any(own.lower() == name.lower() for own, _ in self)

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a header."""
        wanted = name.lower()
        return next((value for own, value in self if own.lower() == wanted), default)

    def set(self, name: str, value: str) -> None:
        """Give a header one value; raise ValueError for what can't be a header or frames the message."""
        key, content = name.encode("latin-1"), value.encode("latin-1")
        if not _TOKEN.fullmatch(key) or not _VALUE.fullmatch(content):
            raise ValueError(f"{name!r} can't be a header with that value")
        if key.lower() in _FRAMING:
            raise ValueError(f"{name} is the gateway's own to set")
        self.remove(name)
        self.lines.append(b"%b: %b\r\n" % (key, content.strip()))

    def remove(self, *names: str) -> None:
        """Take headers out; those that are not there are no error."""
        wanted = {name.lower().encode("latin-1") for name in names}
        self.lines[:] = [line for line in self.lines if line.partition(b":")[0].lower() not in wanted]


class _Message:
    """Headers and a body. ``body`` can be set; `rewrite` changes the text in it and nothing else."""

    __slots__ = ("_body", "headers")
    _stale: ClassVar[tuple[str, ...]] = ("content-encoding", "content-md5", "digest", "content-digest", "repr-digest")
    """What a header said of the body that is replaced."""

    def __init__(self, lines: list[bytes], body: bytes) -> None:
        self.headers = Headers(lines)
        self._body = body

    @property
    def body(self) -> bytes:
        """The bytes as they are sent; see `plain` for those of a compressed body."""
        return self._body

    @body.setter
    def body(self, content: bytes) -> None:
        self._body = content
        self.headers.remove(*self._stale)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type")

    def plain(self) -> bytes:
        """Return the body without its content coding; raise Unreadable."""
        return text.unfold(self._body, self.headers.get("content-encoding").strip().lower())

    def json(self) -> Any:
        """Return the body parsed anew each time; raise ValueError when it is not JSON."""
        return json.loads(self.plain())

    def set_json(self, value: Any) -> None:
        self.body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def rewrite(self, change: Change) -> bool:
        """Apply ``change(text, key)`` to every piece of text of the body; tell whether anything changed.

        JSON strings without their keys, the fields of forms, whole texts; other types are left
        alone. Where nothing changes, not a byte does. Raise Unreadable.
        """
        before = self.plain()
        after = text.rewrite(before, self.content_type, change)
        if after is before:
            return False
        self.body = after
        return True


class Service:
    """The service that a route leads to."""

    __slots__ = ("category", "dialect", "id", "provider", "region", "slug", "version")

    def __init__(
        self, *, id: str, provider: str, slug: str, version: str, category: str, dialect: str, region: str
    ) -> None:
        self.id, self.provider, self.slug, self.version = id, provider, slug, version
        self.category, self.dialect, self.region = category, dialect, region

    @property
    def path(self) -> str:
        """``provider/service``, as in addresses."""
        return f"{self.provider}/{self.slug}"


class Arrival:
    """A call of which nothing is known yet but its head. Nothing of it can be changed."""

    __slots__ = ("headers", "method", "target")

    def __init__(self, method: str, target: str, lines: list[bytes]) -> None:
        self.method, self.target = method, target
        self.headers = Headers(lines)


class Request(_Message):
    """An admitted call, whole, on its way to the provider. Headers and body may be changed."""

    __slots__ = ("application", "id", "method", "notes", "org", "path", "plan", "service", "tags", "user")

    def __init__(
        self,
        lines: list[bytes],
        body: bytes,
        *,
        id: str,
        method: str,
        path: str,
        service: Service,
        org: str,
        application: str,
        plan: str,
        user: str,
    ) -> None:
        super().__init__(lines, body)
        self.id, self.method, self.path, self.service = id, method, path, service
        self.org, self.application, self.plan, self.user = org, application, plan, user
        self.notes: dict[str, Any] = {}
        """What plugins want to remember until the call has ended."""
        self.tags: dict[str, str] = {}
        """Labels to add to the usage event."""

    def renew(self, lines: list[bytes], body: bytes) -> None:
        """Take over what was changed by others since this plugin or another one looked."""
        self.headers.lines = lines
        self._body = body


class Answer(_Message):
    """A provider's answer, whole, before it is recorded and written."""

    __slots__ = ("status",)
    _stale = (*_Message._stale, "etag", "accept-ranges", "content-range")

    def __init__(self, status: int, lines: list[bytes], body: bytes) -> None:
        super().__init__(lines, body)
        self.status = status


class Event:
    """One complete event of an answer that is a stream of them (``text/event-stream``)."""

    __slots__ = ("data",)

    def __init__(self, data: str) -> None:
        self.data = data

    def rewrite(self, change: Change) -> bool:
        """Apply ``change(text, key)`` to the event's text, or to the strings of its JSON."""
        kind = "application/json" if self.data.lstrip()[:1] in ("{", "[") else "text/plain"
        after = text.rewrite_text(self.data, kind, change)
        if after is self.data:
            return False
        self.data = after
        return True


class Usage:
    """What was recorded of a call. To look at only: what is billed is not for plugins to change."""

    __slots__ = ("_event",)

    def __init__(self, event: Any) -> None:
        self._event = event

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._event, name)
        return dict(value) if isinstance(value, Mapping) else value
