"""A chat that babbles: a small model of characters, trained on a few pages about a market."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from importlib import resources

from haat.language import detect_script
from haat.models.hosted import HostedChat, Speak, Turn
from haat.providers.akshara.ngram import NgramModel
from haat.providers.companies import AKSHARA

_TEXTS = ("market-en.txt", "market-hi.txt")


@lru_cache(maxsize=1)
def model() -> NgramModel:
    """Return the model, trained at the first call in less than a second."""
    folder = resources.files("haat.providers.akshara") / "texts"
    return NgramModel("\n".join(folder.joinpath(name).read_text("utf-8") for name in _TEXTS))


def open_model() -> Speak:
    """Train the model, and return what answers with it."""
    trained = model()

    def speak(turn: Turn) -> Iterator[str]:
        answer = trained.continue_text(_before(turn.messages), turn.seed, turn.temperature, turn.top_p)
        return _one_paragraph(answer)

    return speak


def _before(messages: tuple[tuple[str, str], ...]) -> str:
    """Return what an answer goes on from: the last thing said, as a paragraph that has ended.

    The model has read nothing but paragraphs, and begins a new one in the script of that before.
    """
    said = next((text for role, text in reversed(messages) if role == "user"), messages[-1][1])
    end = "।" if detect_script(said) == "Deva" else "."
    return f"{said.strip().rstrip('.?!।')}{end}\n"


def _one_paragraph(characters: Iterator[str]) -> Iterator[str]:
    """Yield characters until the line ends; one that is empty is no answer."""
    begun = False
    for character in characters:
        if character != "\n":
            begun = True
            yield character
        elif begun:
            return


def service() -> HostedChat:
    return HostedChat(
        company=AKSHARA,
        slug="chat",
        name="Chat",
        summary="Speaks OpenAI's chat completions, and only babbles: a tiny model to try programs with.",
        description="It only babbles. The model has read a few pages of English and Hindi about a market and knows "
        "how often which character follows six others: it understands nothing, answers no question, follows no "
        "instruction, and what it says is not true. It is here so that a program that chats can be tried at little "
        "cost before it is pointed at a model that thinks. A token is a character, of the messages and of the answer. "
        "It answers with one paragraph, in Hindi to what is written in Devanagari, else in English; `seed`, "
        "`temperature`, `top_p`, `stop`, `max_tokens` and `stream` do what they do elsewhere, and `temperature` 0 "
        "always says the same. No tools, images, penalties or probabilities.",
        category="llm",
        unit="tokens",
        languages=("en-Latn", "hi-Deva"),
        sample={"messages": [{"role": "user", "content": "What is sold at the market?"}], "max_tokens": 120, "seed": 7},
        unit_price=Decimal("0.00001"),
        free_units=1_000,
        typical_latency_ms=60,
        license_note="Model: an interpolated character model of order seven, trained on a text of the project's own.",
        open=open_model,
    )
