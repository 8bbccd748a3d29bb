"""The two models that every server runs: plain classes that take a batch of texts, and need nothing but themselves."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from typing import Any

Answer = dict[str, Any]
LONGEST = 128
"""Pieces of a text that are looked at."""
PIECES = 8_192


def pieces(text: str) -> list[int]:
    """Return the numbers of a text's letter triples; the model was trained with the same."""
    data = f" {text.lower()} ".encode()
    return [1 + zlib.crc32(data[at : at + 3]) % (PIECES - 1) for at in range(min(LONGEST, len(data) - 2))]


class Ten:
    """Takes ten milliseconds a batch, whatever is in it."""

    def predict(self, texts: Sequence[str]) -> list[Answer]:
        time.sleep(0.01)
        return [{"label": "x" if "x" in text else "o", "pid": os.getpid()} for text in texts]


class Polarity:
    """Says whether a text is friendly: the ONNX model that `bench/text_model.py` makes, on one thread."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(self, texts: Sequence[str]) -> list[Answer]:
        import numpy as np

        rows = [pieces(text) for text in texts]
        given = np.zeros((len(rows), LONGEST), np.int64)
        for at, row in enumerate(rows):
            given[at, : len(row)] = row
        (shares,) = self.session.run(["friendly"], {"pieces": given})
        return [
            {"label": "friendly" if share > 0.5 else "unfriendly", "share": round(float(share), 4), "pid": os.getpid()}
            for share in shares
        ]
