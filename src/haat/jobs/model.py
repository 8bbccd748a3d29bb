"""What a job is, and the rules about one that need no database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from haat.kernel.errors import InvalidRequest, NotFound, ValidationFailed
from haat.kernel.text import is_storable
from haat.language.messages import _

Kind = Literal["native", "openai", "ulca"]
JobStatus = Literal["waiting", "running", "cancelling", "completed", "cancelled", "expired", "failed"]

MAX_BYTES = 100 * 1024 * 1024
"""Most bytes of a submission, and of a file."""
MAX_ITEMS = 50_000
MAX_LINE_BYTES = 10 * 1024 * 1024
MAX_OPEN_JOBS = 1_000
"""Jobs of an organisation that have not ended: further ones are refused."""
MAX_STORED_BYTES = 2 * 1024 * 1024 * 1024
"""Most bytes of all files of an organisation together."""
KEEP = timedelta(days=30)
"""How long an ended job, its results, and a file are kept."""
DUE = timedelta(days=7)
"""How long a job may take before what is left of it expires."""
DEFAULT_PRIORITY = 5
DEFAULT_TIMEOUT = 300
DEFAULT_ATTEMPTS = 3
MOST_METADATA = 16
ENDED = frozenset({"completed", "cancelled", "expired", "failed"})

_TARGET = re.compile(r"/v1/services/([a-z0-9-]{1,63})/([a-z0-9-]{1,63})(@[A-Za-z0-9._-]{1,64})?(/[^\s\\#]*)?")
_SERVICE = re.compile(r"([a-z0-9-]{1,63})/([a-z0-9-]{1,63})(@[A-Za-z0-9._-]{1,64})?")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks at the gateway: an application by one of its keys. ``request_id`` is the request's own."""

    org_id: UUID
    application_id: UUID
    credential_id: UUID
    test: bool
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How a job is to be done. ``timeout_seconds`` and ``max_attempts`` are an item's."""

    name: str = ""
    priority: int = DEFAULT_PRIORITY
    timeout_seconds: int = DEFAULT_TIMEOUT
    max_attempts: int = DEFAULT_ATTEMPTS
    mail: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    due: timedelta = DUE

    def check(self) -> Options:
        """Return the options; raise ValidationFailed that names each field which is out of bounds."""
        wrong = [
            {"field": name, "message": f"is between {low} and {high}"}
            for name, value, low, high in (
                ("priority", self.priority, 1, 10),
                ("timeout_seconds", self.timeout_seconds, 1, 300),
                ("max_attempts", self.max_attempts, 1, 10),
            )
            if not low <= value <= high
        ]
        if len(self.name) > 200 or not is_storable(self.name):
            wrong.append({"field": "name", "message": "has at most 200 characters that can be stored"})
        if (
            len(self.metadata) > MOST_METADATA
            or any(len(key) > 64 or len(value) > 512 for key, value in self.metadata.items())
            or not is_storable(dict(self.metadata))
        ):
            message = f"has at most {MOST_METADATA} names of 64 with texts of 512 characters"
            wrong.append({"field": "metadata", "message": message})
        if wrong:
            raise ValidationFailed(errors=wrong)
        return self


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. ``total`` counts its items; those that have not ended are what the others leave."""

    id: UUID
    org_id: UUID
    application_id: UUID
    credential_id: UUID
    key_id: UUID | None
    mode: Literal["live", "test"]
    kind: Kind
    target: str
    name: str
    metadata: Mapping[str, Any]
    priority: int
    timeout_seconds: int
    max_attempts: int
    mail: bool
    status: JobStatus
    reason: str
    note: str
    total: int
    succeeded: int
    failed: int
    cancelled: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    cancel_asked_at: datetime | None
    due_until: datetime
    slices: int
    engine_job: int | None
    input_file: UUID | None
    output_file: UUID | None
    error_file: UUID | None

    @property
    def waiting(self) -> int:
        return self.total - self.succeeded - self.failed - self.cancelled

    @property
    def progress(self) -> float:
        """How much of it has ended, from 0 to 1."""
        return 1 - self.waiting / self.total if self.total else 1.0

    @property
    def kept_until(self) -> datetime | None:
        return self.ended_at + KEEP if self.ended_at else None

    @property
    def is_over(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a submission. ``service`` is the listing it calls, where that can be told."""

    body: bytes
    custom_id: str | None = None
    service: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One call to be made. ``place`` counts from 0; ``key_number`` tells its executions apart."""

    place: int
    attempts: int
    key_number: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt at an item has come to; ``waiting`` with a ``due_in`` is tried again."""

    place: int
    status: Literal["waiting", "succeeded", "failed"]
    attempts: int
    key_number: int
    due_in: float = 0
    http_status: int | None = None
    content_type: str = ""
    answer: bytes | None = None
    request_id: str = ""
    error_code: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """An item with what became of it."""

    place: int
    custom_id: str | None
    status: str
    attempts: int
    http_status: int | None
    content_type: str
    answer: bytes | None
    request_id: str
    error_code: str


@dataclass(frozen=True, slots=True)
class File:
    """A file that an application has sent, or that was made for it."""

    id: UUID
    org_id: UUID
    application_id: UUID
    filename: str
    purpose: str
    bytes: int
    created_at: datetime
    expires_at: datetime


def idempotency_key(job: UUID, item: Item) -> str:
    """Return what makes sending an item's call again safe: it is executed and billed once for each number."""
    return f"job-{job}-{item.place}-{item.key_number}"


def service_in(target: str) -> tuple[str, str] | None:
    """Return provider and slug of the service that an address calls; None for the address of a protocol."""
    found = _TARGET.fullmatch(target)
    return (found[1], found[2]) if found else None


def check_target(service: str, path: str, field: str = "service") -> str:
    """Return the address of a service's path; raise ValidationFailed for what can't be one."""
    if not _SERVICE.fullmatch(service):
        message = "is written provider/service, or provider/service@version"
        raise ValidationFailed(errors=[{"field": field, "message": message}])
    target = f"/v1/services/{service}{path}"
    if not path.startswith("/") or len(target) > 2000 or not target.isascii() or not _TARGET.fullmatch(target):
        message = "begins with a slash and is at most 2,000 characters of an address: percent-encode the others"
        raise ValidationFailed(errors=[{"field": "path", "message": message}])
    return target


def parse_id(text: str, prefix: str = "", what: str = "job") -> UUID:
    """Return the id in an address; raise NotFound, as for one that is another's."""
    try:
        if not text.startswith(prefix):
            raise ValueError(text)
        return UUID(text.removeprefix(prefix))
    except ValueError as error:
        raise NotFound(f"There is no such {what}." if prefix else _("There is nothing of this id.")) from error


def wrong_line(number: int, message: str) -> InvalidRequest:
    """Return the refusal of a file for one of its lines, counted from 1."""
    return InvalidRequest(f"Line {number} {message}.", field=f"line {number}", line=number)
