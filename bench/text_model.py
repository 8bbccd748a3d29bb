"""Trains the text model of the benchmark and writes it as ONNX: `python text_model.py FILE`, some seconds.

It learns from the words that VADER's lexicon rates which are friendly and which are not, by their letters: an
embedding for each triple of them, their mean, a hidden layer, a share. It runs in an environment of its own.
"""

from __future__ import annotations

import importlib.resources
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent / "peer_apps"))
from served import LONGEST, PIECES, pieces

WIDTH, HIDDEN = 64, 128
ROUNDS, BATCH, RATE = 4, 64, 0.003
LEAST_RIGHT = 0.7
"""Share of words never seen that it must tell right; chance is about a half."""


def lexicon() -> tuple[np.ndarray, np.ndarray]:
    """Return the rated words as rows of pieces, shuffled, and whether each is friendly."""
    text = (importlib.resources.files("vaderSentiment") / "vader_lexicon.txt").read_text("utf-8")
    lines = [line.split("\t") for line in text.splitlines()]
    rated = [(word, float(rating)) for word, rating, *_ in lines if word.isalpha()]
    np.random.default_rng(5).shuffle(rated)
    given = np.zeros((len(rated), LONGEST), np.int64)
    for at, (word, _) in enumerate(rated):
        found = pieces(str(word))
        given[at, : len(found)] = found
    return given, np.array([float(rating) > 0 for _, rating in rated], np.float32)


class Network:
    """The parameters and their moments (Adam)."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.embedding = rng.normal(0, 0.1, (PIECES, WIDTH)).astype(np.float32)
        self.embedding[0] = 0  # stands for nothing
        self.inner = rng.normal(0, WIDTH**-0.5, (WIDTH, HIDDEN)).astype(np.float32)
        self.bias = np.zeros(HIDDEN, np.float32)
        self.outer = rng.normal(0, HIDDEN**-0.5, (HIDDEN, 1)).astype(np.float32)
        self.moments = [(np.zeros_like(value), np.zeros_like(value)) for value in self.parameters]
        self.steps = 0

    @property
    def parameters(self) -> list[np.ndarray]:
        return [self.embedding, self.inner, self.bias, self.outer]

    def forward(self, given: np.ndarray) -> tuple[np.ndarray, ...]:
        count = np.maximum(1, (given > 0).sum(1, keepdims=True)).astype(np.float32)
        mean = self.embedding[given].sum(1) / count * np.float32(WIDTH**0.5)
        hidden = np.tanh(mean @ self.inner + self.bias)
        return count, mean, hidden, 1 / (1 + np.exp(-(hidden @ self.outer)[:, 0]))

    def learn(self, given: np.ndarray, wanted: np.ndarray) -> None:
        count, mean, hidden, share = self.forward(given)
        error = ((share - wanted) / len(given))[:, None].astype(np.float32)
        inside = error @ self.outer.T * (1 - hidden**2)
        embedding = np.zeros_like(self.embedding)
        spread = (inside @ self.inner.T * np.float32(WIDTH**0.5) / count)[:, None, :]
        np.add.at(embedding, given[:, :24], np.broadcast_to(spread, (len(given), 24, WIDTH)))
        embedding[0] = 0
        self.steps += 1
        slopes = [embedding, mean.T @ inside, inside.sum(0), hidden.T @ error]
        for value, slope, (first, second) in zip(self.parameters, slopes, self.moments, strict=True):
            first += 0.1 * (slope - first)
            second += 0.001 * (slope**2 - second)
            scaled = first / (1 - 0.9**self.steps) / (np.sqrt(second / (1 - 0.999**self.steps)) + 1e-8)
            value -= np.float32(RATE) * scaled.astype(np.float32)


def trained() -> tuple[Network, float]:
    """Return the network, and the share of a tenth of the words, kept apart, that it tells right."""
    given, wanted = lexicon()
    apart = len(given) // 10
    network, rng = Network(), np.random.default_rng(11)
    for _ in range(ROUNDS):
        order = apart + rng.permutation(len(given) - apart)
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            network.learn(given[chosen], wanted[chosen])
    right = float(((network.forward(given[:apart])[3] > 0.5) == (wanted[:apart] > 0.5)).mean())
    return network, right


def exported(network: Network) -> onnx.ModelProto:
    """Return the network as an ONNX model: ``pieces`` int64 [batch, 128] → ``friendly`` float32 [batch]."""
    values = {
        "embedding": network.embedding,
        "inner": network.inner,
        "bias": network.bias,
        "outer": network.outer,
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.float32),
        "scale": np.array(WIDTH**0.5, np.float32),
        "places": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["embedding", "pieces"], ["embedded"], axis=0),
        helper.make_node("ReduceSum", ["embedded", "places"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["pieces", "zero"], ["there"]),
        helper.make_node("Cast", ["there"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ones", "places"], ["count"], keepdims=1),
        helper.make_node("Max", ["count", "one"], ["least_one"]),
        helper.make_node("Div", ["sum", "least_one"], ["plain_mean"]),
        helper.make_node("Mul", ["plain_mean", "scale"], ["mean"]),
        helper.make_node("Gemm", ["mean", "inner", "bias"], ["before"]),
        helper.make_node("Tanh", ["before"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "outer"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["shares"]),
        helper.make_node("Squeeze", ["shares", "places"], ["friendly"]),
    ]
    graph = helper.make_graph(
        nodes,
        "polarity",
        [helper.make_tensor_value_info("pieces", TensorProto.INT64, ["batch", LONGEST])],
        [helper.make_tensor_value_info("friendly", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    network, right = trained()
    if right < LEAST_RIGHT:
        sys.exit(f"the text model tells only {right:.0%} of the words right that it has not seen")
    Path(sys.argv[1]).write_bytes(exported(network).SerializeToString())
    print(f"{right:.3f}")


if __name__ == "__main__":
    main()
