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

    Members not yet known are class defaults, so that making a call costs what it sets. Times are
    the gateway clock's microseconds.
    """

    # --- the request, as the client connection parses it
    method: bytes = b""
    target: bytes = b""
    minor_version: int = 1
    keep_alive: bool = True
    content_length: int = -1
    chunked: bool = False
    expects_continue: bool = False
    accepts_stream: bool = False
    hosts: int = 0
    bearer: bytes = b""
    api_key: bytes = b""
    user: bytes = b""
    tags: bytes = b""
    caller_request_id: bytes = b""
    connection: bytes = b""
    body_size: int = 0
    body_complete: bool = False

    # --- who, what, under which limits
    number: int = 0
    id: str = ""
    started: int = 0
    credential: Credential | None = None
    service_path: str = ""
    route: Route | None = None
    subscription: Subscription | None = None
    allowance: Allowance | None = None
    month_start: int = 0
    admitted: bool = False
    body_limit: int = 0
    tail: bytes = b""

    # --- the way to the provider and back
    dispatched: bool = False
    body_streamed: bool = False
    upstream: UpstreamConnection | None = None
    attempts: int = 0
    deadline: int = 0
    wait_deadline: int = 0
    status: int = 0
    no_body: bool = False
    chunk_answer: bool = False
    streaming: bool = False
    head_flushed: bool = False
    opened: bool = False
    checkpointed: int = 0
    bytes_out: int = 0
    language_pair: str = ""
    raw_usage: str = ""
    answered: bool = False
    """The last byte has been written, or nothing will be any more."""
    recorded: bool = False
    event: UsageEvent | None = None

    # --- durations
    admission: int = 0
    queue: int = 0
    connect: int = 0
    first_byte: int = 0

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
