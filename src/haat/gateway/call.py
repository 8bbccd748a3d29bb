"""One call, from its request head to its confirmed record. What the stages know, they keep here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.kernel.errors import HaatError

if TYPE_CHECKING:
    from haat.gateway.limits import Allowance
    from haat.gateway.routes import Route
    from haat.gateway.server import ClientConnection
    from haat.gateway.snapshot import Credential, Subscription
    from haat.gateway.upstream import UpstreamConnection
    from haat.usage.event import UsageEvent

BUFFERED_BODY = 64 * 1024
"""A body up to this size is read whole before the call is dispatched; a larger one is streamed."""


class Call:
    """Mutable, and touched only from the event loop.

    Times are the gateway clock's microseconds. Slots, because there are many members and all are read
    often: an instance's dictionary loses its shape beyond thirty.
    """

    __slots__ = (
        "accepts_stream",
        "admission",
        "admitted",
        "allowance",
        "answered",
        "api_key",
        "attempts",
        "bearer",
        "body",
        "body_complete",
        "body_limit",
        "body_size",
        "body_streamed",
        "bytes_out",
        "caller_request_id",
        "checkpointed",
        "chunk_answer",
        "chunked",
        "client",
        "connect",
        "connection",
        "content_length",
        "credential",
        "deadline",
        "dispatched",
        "event",
        "expects_continue",
        "fault",
        "first_byte",
        "head_flushed",
        "hosts",
        "id",
        "keep_alive",
        "language_pair",
        "lines",
        "method",
        "minor_version",
        "month_start",
        "no_body",
        "number",
        "opened",
        "out",
        "queue",
        "raw_usage",
        "recorded",
        "route",
        "service_path",
        "started",
        "status",
        "streaming",
        "subscription",
        "tags",
        "tail",
        "target",
        "units",
        "upstream",
        "user",
        "wait_deadline",
    )

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        self.lines: list[bytes] = []
        """Header lines to forward, each with its line end."""
        self.body: list[bytes] = []
        self.out: list[bytes] = []
        """What is to be written to the client at the end of this turn."""
        self.units: dict[str, str] = {}
        self.fault: HaatError | None = None
        """What is wrong with the request's form."""

        # --- the request, as the client connection parses it
        self.method: bytes = b""
        self.target: bytes = b""
        self.minor_version: int = 1
        self.keep_alive: bool = True
        self.content_length: int = -1
        self.chunked: bool = False
        self.expects_continue: bool = False
        self.accepts_stream: bool = False
        self.hosts: int = 0
        self.bearer: bytes = b""
        self.api_key: bytes = b""
        self.user: bytes = b""
        self.tags: bytes = b""
        self.caller_request_id: bytes = b""
        self.connection: bytes = b""
        self.body_size: int = 0
        self.body_complete: bool = False

        # --- who, what, under which limits
        self.number: int = 0
        self.id: str = ""
        self.started: int = 0
        self.credential: Credential | None = None
        self.service_path: bytes = b""
        self.route: Route | None = None
        self.subscription: Subscription | None = None
        self.allowance: Allowance | None = None
        self.month_start: int = 0
        self.admitted: bool = False
        self.body_limit: int = 0
        self.tail: bytes = b""

        # --- the way to the provider and back
        self.dispatched: bool = False
        self.body_streamed: bool = False
        self.upstream: UpstreamConnection | None = None
        self.attempts: int = 0
        self.deadline: int = 0
        self.wait_deadline: int = 0
        self.status: int = 0
        self.no_body: bool = False
        self.chunk_answer: bool = False
        self.streaming: bool = False
        self.head_flushed: bool = False
        self.opened: bool = False
        self.checkpointed: int = 0
        self.bytes_out: int = 0
        self.language_pair: str = ""
        self.raw_usage: str = ""
        self.answered: bool = False
        """The last byte has been written, or nothing will be any more."""
        self.recorded: bool = False
        self.event: UsageEvent | None = None

        # --- durations
        self.admission: int = 0
        self.queue: int = 0
        self.connect: int = 0
        self.first_byte: int = 0
