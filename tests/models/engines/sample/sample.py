"""A model that does what its inputs say: all that a model can do, the bad things too."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from haat.kernel.errors import InputTooLong, Overloaded
from haat.models.runtimes.port import Input

_LIES: list[list[Any]] = [
    ["end", "soon"],
    ["outputs", [{}], 7, 0.1],
    ["outputs", [{}], {}, "soon"],
    ["outputs", [None], {0: 7}, 0.1],
    ["error", ["OVERLOADED"]],
]
"""What a worker may say by its form, and mustn't by what is in it."""


class Sample:
    def load(self) -> None:
        self.settled = time.monotonic()

    def predict(self, inputs: Sequence[Input]) -> list[Any]:
        texts = [given.text for given in inputs]
        words = [text.split() or [""] for text in texts]
        for first, *rest in words:
            if first == "exit":
                os._exit(3)
            if first == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if first == "hang":
                time.sleep(86_000)
            if first == "raise":
                raise RuntimeError("a secret of the model")
            if first == "refuse":
                raise InputTooLong("This is longer than the model can read.", limit=3)
            if first == "inject":
                raise Overloaded("No.", retry_after="1\r\nx-haat-usage: characters=0", status=200)
            if first == "print":
                print("models print what they like", flush=True)
                os.write(1, b"even past Python\n")
            if first == "fork":
                with suppress(PermissionError):  # of its confinement
                    if os.fork() == 0:
                        time.sleep(86_000)
                        os._exit(0)
            if first == "leave":
                sys.exit(0)
            if first == "rubbish":
                for descriptor in range(3, 4096):  # the engine may have many open, and they keep their numbers
                    with suppress(OSError):
                        os.write(descriptor, b"\xff" * 64)
            if first == "lie":
                lie = msgspec.msgpack.encode(_LIES[int(rest[0])])
                for descriptor in range(3, 4096):
                    with suppress(OSError):
                        os.write(descriptor, struct.pack(">I", len(lie)) + lie)
            if first == "grow":
                self.grown = bytearray(os.urandom(1024)) * (1024 * int(rest[0]))
                time.sleep(float(rest[1]) if rest[1:] else 0.0)
        time.sleep(max((float(rest[0]) for first, *rest in words if first == "sleep"), default=0.0))
        outputs: list[Any] = [{"text": text.upper(), "batch": texts, "pid": os.getpid()} for text in texts]
        for index, (first, *_) in enumerate(words):
            if first == "nan":
                outputs[index] = {"scores": [0.5, math.nan]}
            if first == "number":
                outputs[index] = 7
            if first == "object":
                outputs[index] = {"text": object()}
            if first == "half":
                outputs[index] = {"text": "\ud800"}
        return outputs[1:] if any(first == "few" for first, *_ in words) else outputs

    def stream(self, given: Input) -> Iterator[Any]:
        first, *rest = given.text.split()
        if first == "count":
            number = 0
            while True:
                number += 1
                yield {"text": str(number), "pid": os.getpid()}
                time.sleep(float(rest[0]) if rest else 0.0)
        for word in given.text.split():
            if word == "raise":
                raise RuntimeError("a secret of the model")
            if word == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if word == "hang":
                time.sleep(86_000)
            if word == "lie":
                self.predict([Input("lie 0")])
            yield {"text": word, "pid": os.getpid()}


class Broken:
    """Can't be loaded."""

    def load(self) -> None:
        raise OSError("the weights are gone")

    def predict(self, inputs: Sequence[Input]) -> list[Any]:
        return []


class Useless(Sample):
    """Is loaded, and fails at everything."""

    def predict(self, inputs: Sequence[Input]) -> list[Any]:
        raise RuntimeError("never works")


def steady(inputs: Sequence[Input]) -> list[Any]:
    """Take ten milliseconds a batch, whatever is in it."""
    time.sleep(0.01)
    return [{"text": given.text, "pid": os.getpid()} for given in inputs]


def digest(inputs: Sequence[Input]) -> list[Any]:
    """Say what each content is."""
    return [{"digest": hashlib.sha256(given.content).hexdigest()} for given in inputs]
