"""One call, from its request head to its confirmed record. What the stages know, they keep here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.kernel.errors import HaatError

if TYPE_CHECKING:
    from haat.gateway.doors.visit import Visit
    from haat.gateway.extras import Extras
    from haat.gateway.http.answers import AnswerStep
    from haat.gateway.http.client import Client
    from haat.gateway.idempotency.once import Once
    from haat.gateway.limits.registry import Allowance
    from haat.gateway.market.grants import Grant
    from haat.gateway.market.routes import Route
    from haat.gateway.market.snapshot import Credential, Subscription
    from haat.gateway.upstreams.connection import UpstreamConnection
    from haat.gateway.upstreams.endpoints import Endpoint

BUFFERED_BODY = 64 * 1024
"""A body up to this size is read whole before the call is dispatched; a larger one is streamed."""

ID_AT = len(b"X-Request-ID: ")
ID_END = ID_AT + 36
NO_ID_LINE = b"X-Request-ID: 00000000-0000-7000-8000-000000000000\r\n"
NO_UNITS: dict[str, str] = {}
NO_ANSWER_STEPS: list[AnswerStep] = []


class Call:
    """Mutable, and touched only from the event loop. Times are the gateway clock's microseconds.

    Made once a request, so it sets as little as it can: what is missing here is set before it is read.
    """

    __slots__ = (
        "accepts_stream",
        "admission",
        "admitted",
        "allowance",
        "answer_bytes",
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
        "cache",
        "cached_units",
        "caller_request_id",
        "checkpointed",
        "chunk_answer",
        "chunked",
        "client",
        "collected",
        "confirmable",
        "connect",
        "connection",
        "content_length",
        "credential",
        "deadline",
        "dispatched",
        "endpoint",
        "event_stream",
        "expects_continue",
        "extras",
        "fault",
        "first_byte",
        "grant",
        "head_flushed",
        "headed",
        "held",
        "hosts",
        "id_line",
        "keep_alive",
        "labelled",
        "language_pair",
        "line_open",
        "lines",
        "method",
        "minor_version",
        "no_body",
        "number",
        "on_answer",
        "once",
        "opened",
        "outcome",
        "period",
        "queue",
        "raw_usage",
        "recorded",
        "reserved",
        "route",
        "service_path",
        "started",
        "status",
        "step",
        "streaming",
        "subscription",
        "tags",
        "tail",
        "target",
        "units",
        "upstream",
        "user",
        "visit",
        "wait_deadline",
    )

    held: tuple[int, ...]
    """Millionths of each priced unit that its purses hold for it; set where ``grant.cover`` is."""
    cached_units: dict[str, str]
    """The part of ``units`` that came out of the cache; set when ``cache`` is ``partial``."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lines: list[bytes] = []
        """Header lines to forward, each with its line end."""
        self.body: list[bytes] = []
        self.units: dict[str, str] = NO_UNITS
        """What the provider reported; replaced, never changed."""
        self.on_answer: list[AnswerStep] = NO_ANSWER_STEPS
        """What must see the answer whole before it is recorded and written; replaced, never changed."""
        self.extras: Extras | None = None
        """What few calls have."""
        self.visit: Visit | None = None
        """It came in at a front door."""
        self.once: Once | None = None
        """The caller's Idempotency-Key."""
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
        self.labelled: bool = False
        """The caller sent labels of its own: ``user``, ``tags`` or ``caller_request_id`` are not empty."""
        self.user: bytes = b""
        self.tags: bytes = b""
        self.caller_request_id: bytes = b""
        self.connection: bytes = b""
        self.body_size: int = 0
        self.body_complete: bool = False

        # --- who, what, under which limits
        self.id_line: bytes = NO_ID_LINE
        """``X-Request-ID`` with the call's id; set with ``number`` and ``started`` when its turn comes."""
        self.started: int = 0
        self.number: int = 0
        self.grant: Grant | None = None
        self.credential: Credential | None = None
        self.route: Route | None = None
        self.subscription: Subscription | None = None
        self.allowance: Allowance | None = None
        self.service_path: bytes = b""
        self.tail: bytes = b""
        self.period: int = 0
        """To which day and month of the quota the reservation belongs."""
        self.reserved: int = 0
        """Millionths of the quota's unit; once settled, what was used of them."""
        self.admitted: bool = False
        self.body_limit: int = 0
        self.step: int = 0
        """How many of the route's steps are behind it."""

        # --- the way to the provider and back
        self.dispatched: bool = False
        self.body_streamed: bool = False
        """A part of the body has left and is not kept."""
        self.upstream: UpstreamConnection | None = None
        self.endpoint: Endpoint | None = None
        """Where `dispatch` has sent it; None when there was no choice, so that it is the route's only one."""
        self.attempts: int = 0
        """How often it has gone again: to the same endpoint, another one, or a stand-in."""
        self.deadline: int = 0
        self.wait_deadline: int = 0
        self.status: int = 0
        self.headed: bool = False
        """The answer's head has come, and been made into ours."""
        self.no_body: bool = False
        self.chunk_answer: bool = False
        self.streaming: bool = False
        self.event_stream: bool = False
        self.line_open: bool = False
        """The last byte of the event stream so far ended no line."""
        self.head_flushed: bool = False
        self.collected: list[bytes] | None = None
        """The answer's body so far, when ``on_answer`` wants it whole."""
        self.opened: bool = False
        self.checkpointed: int = 0
        self.bytes_out: int = 0
        self.language_pair: str = ""
        self.raw_usage: str = ""
        self.cache: str = ""
        self.answer_bytes: int = 0
        """Size of an answer that was written whole at once; 0 for any other."""
        self.answered: bool = False
        """The last byte has been written, or nothing will be any more."""
        self.recorded: bool = False
        self.confirmable: bool = False
        """Its record is in the journal and waits for its confirmation."""
        self.outcome: str = ""

        # --- durations
        self.admission: int = 0
        self.queue: int = 0
        self.connect: int = 0
        self.first_byte: int = 0

    @property
    def has_body(self) -> bool:
        """Whether its head announces a body that is not empty."""
        return self.content_length > 0 or self.chunked

    @property
    def id(self) -> str:
        """The request id, which is also the id of the usage event."""
        return self.id_line[ID_AT:ID_END].decode("ascii")
