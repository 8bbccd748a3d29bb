"""Trains the classifier and writes model.onnx and vocabulary.txt: `pip install numpy onnx && python train.py`.

It is a bag of characters: each has a weight for each label, their mean decides.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = ["bad", "good"]
EXAMPLES = [
    ("बहुत अच्छा", 1), ("अच्छी सेवा", 1), ("मुझे पसंद आया", 1), ("शानदार काम", 1), ("good work", 1), ("very nice", 1),
    ("बहुत बुरा", 0), ("खराब सेवा", 0), ("मुझे पसंद नहीं", 0), ("घटिया काम", 0), ("bad work", 0), ("very poor", 0),
]  # fmt: skip
PAD, UNKNOWN = "<pad>", "<unknown>"


def train(vocabulary: list[str]) -> np.ndarray:
    """Return the weights [token, label] after a few hundred steps of gradient descent."""
    counts = np.zeros((len(EXAMPLES), len(vocabulary)))
    for row, (text, _) in enumerate(EXAMPLES):
        for letter in text:
            counts[row, vocabulary.index(letter)] += 1
    counts /= counts.sum(axis=1, keepdims=True)
    wanted = np.eye(len(LABELS))[[label for _, label in EXAMPLES]]
    weights = np.zeros((len(vocabulary), len(LABELS)))
    for _ in range(2000):
        scores = np.exp(counts @ weights)
        scores /= scores.sum(axis=1, keepdims=True)
        weights += 5 * counts.T @ (wanted - scores)
    return weights.astype(np.float32)


def main() -> None:
    folder = Path(__file__).parent
    vocabulary = [PAD, UNKNOWN, *sorted({letter for text, _ in EXAMPLES for letter in text})]
    weights = train(vocabulary)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["weights", "ids"], ["each"]),
            helper.make_node("Cast", ["mask"], ["kept"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["kept", "last"], ["kept_each"]),
            helper.make_node("Mul", ["each", "kept_each"], ["some"]),
            helper.make_node("ReduceSum", ["some", "length"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["kept", "length"], ["letters"], keepdims=1),
            helper.make_node("Div", ["sum", "letters"], ["logits"]),
        ],
        "classifier",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"]),
            helper.make_tensor_value_info("mask", TensorProto.INT64, ["n", "length"]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(LABELS)])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
            numpy_helper.from_array(np.array([1], np.int64), "length"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "vocabulary.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
