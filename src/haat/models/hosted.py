"""What a language service that runs inside the platform tells about itself, and how it is called.

A plugin returns `HostedService` and `HostedChat` values from the `haat_services` hook; the catalog lists
them, the service execution module runs them, `haat doctor` asks them what is missing. Nothing here does I/O.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal

Category = Literal[
    "translation", "transliteration", "speech_to_text", "text_to_speech", "ocr", "nlp", "llm", "embedding", "custom"
]
Unit = Literal[
    "requests", "characters", "graphemes", "tokens", "audio_seconds", "pages", "images", "bytes", "compute_seconds"
]
InputKind = Literal["text", "text_pair", "audio", "image"]
Runtime = Literal["inline", "process", "command"]

Output = dict[str, Any]
Units = dict[str, Decimal]


@dataclass(frozen=True, slots=True)
class Item:
    """One input of a call, already checked: ``text`` (and ``other`` of a pair), or decoded ``content``."""

    text: str = ""
    other: str = ""
    content: bytes = b""
    format: str = ""


Invoke = Callable[[Sequence[Item], Mapping[str, Any]], tuple[list[Output], Units]]


@dataclass(frozen=True, slots=True)
class Company:
    """The provider a hosted service belongs to, as its partner record shows it."""

    slug: str
    name: str
    email: str
    contact_person: str
    business_type: str


@dataclass(frozen=True, slots=True)
class Option:
    """One member of ``config`` besides the languages; ``default`` None means it may be left out.

    ``least`` and ``most`` bound a number, the length of a text, or how many texts a list holds.
    """

    name: str
    kind: Literal["choice", "integer", "number", "text", "texts"]
    summary: str
    default: Any = None
    choices: tuple[str, ...] = ()
    least: int = 0
    most: int = 0


def nothing_missing() -> str | None:
    """The answer of a service whose engine comes with the platform."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted(ABC):
    """What the two kinds of services that the platform runs have in common: how they are listed.

    ``languages`` are BCP-47 tags with script (``hi-Deva``). ``sample`` is the body of a call that succeeds.
    ``unit_price`` is in rupees a unit, ``free_units`` are given each month. ``capability`` is a name for what
    it does, which services of other providers may have too; ``aliases`` are names under which programs know
    it as a model. ``missing`` says in a sentence which engine is not installed and the command that installs it.
    """

    dialect: ClassVar[Literal["task", "openai"]]
    sample_path: ClassVar[str]

    company: Company
    slug: str
    name: str
    summary: str
    description: str
    category: Category
    unit: Unit
    sample: Mapping[str, Any]
    unit_price: Decimal
    license_note: str
    version: str = "1.0.0"
    free_units: int = 0
    languages: tuple[str, ...] = ()
    language_pairs: tuple[str, ...] = ()
    capability: str = ""
    aliases: tuple[str, ...] = ()
    timeout_seconds: float = 10.0
    typical_latency_ms: int = 5
    missing: Callable[[], str | None] = nothing_missing

    def __post_init__(self) -> None:
        if self.unit_price < 0 or not isinstance(self.unit_price, Decimal):
            raise ValueError(f"{self.path}: the unit price is a Decimal that is not negative")

    @property
    def provider(self) -> str:
        """Slug of the provider."""
        return self.company.slug

    @property
    def path(self) -> str:
        """``provider/service``, as it stands in addresses."""
        return f"{self.company.slug}/{self.slug}"

    @property
    @abstractmethod
    def max_body_bytes(self) -> int:
        """Most bytes a well-formed call can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedService(Hosted):
    """A service that is called by the task schema.

    ``language_pairs`` are written ``hi-Deva>ur-Arab``. A service with pairs takes ``config.source`` and
    ``config.target``; one with languages takes ``config.language`` unless ``takes_language`` is false (it
    finds the language out by itself). ``audio_formats`` are those in which one that speaks gives its sound when
    ``config.format`` names one, as far as this machine can.
    ``invoke`` gets checked items and a complete config (canonical tags, defaults filled in) and returns
    one output an item and the units used; it may raise any `HaatError`. It is synchronous and runs
    ``inline`` (microseconds), in a worker ``process`` (heavy, or unsafe in threads) or, as a
    ``command``, in a thread that waits for a program.
    """

    dialect: ClassVar[Literal["task", "openai"]] = "task"
    sample_path: ClassVar[str] = "/invoke"

    kind: InputKind
    invoke: Invoke
    runtime: Runtime
    takes_language: bool = True
    options: tuple[Option, ...] = ()
    formats: tuple[str, ...] = ()
    audio_formats: tuple[str, ...] = ()
    max_inputs: int = 100
    max_characters: int = 5_000
    max_bytes: int = 0

    def __post_init__(self) -> None:
        Hosted.__post_init__(self)
        if not 1 <= self.max_inputs <= 100:
            raise ValueError(f"{self.path}: a call takes 1 to 100 inputs, not {self.max_inputs}")
        if self.kind in ("audio", "image") and not (self.max_bytes and self.formats):
            raise ValueError(f"{self.path}: {self.kind} needs max_bytes and formats")

    @property
    def max_body_bytes(self) -> int:
        """Most bytes a well-formed call can have: text may be written as JSON escapes, content as base64."""
        one = self.max_bytes * 4 // 3 + 4 if self.max_bytes else self.max_characters * 12
        texts = 2 if self.kind == "text_pair" else 1
        return self.max_inputs * (texts * one + 128) + 64 * 1024


@dataclass(frozen=True, slots=True)
class Turn:
    """What a chat is to go on from, already checked. ``seed`` None leaves it to chance; ``stop`` ends the answer."""

    messages: tuple[tuple[str, str], ...]
    """Roles and texts, in order."""
    most: int
    """Tokens of the answer at most."""
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


Speak = Callable[[Turn], Iterator[str]]
"""Yields an answer's tokens one by one; each may take a millisecond at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedChat(Hosted):
    """A language model that is called as OpenAI's chat completions are.

    ``open`` loads the model, once and in a thread, and returns what speaks. ``count`` counts a text's tokens: what
    it counts is what is metered. A conversation has at most ``max_characters``, an answer ``max_tokens``.
    """

    dialect: ClassVar[Literal["task", "openai"]] = "openai"
    sample_path: ClassVar[str] = "/chat/completions"

    open: Callable[[], Speak]
    count: Callable[[str], int] = len
    max_characters: int = 20_000
    max_messages: int = 200
    max_tokens: int = 1_000

    @property
    def max_body_bytes(self) -> int:
        """Most bytes a well-formed call can have: text may be written as JSON escapes."""
        return self.max_characters * 12 + self.max_messages * 128 + 64 * 1024
