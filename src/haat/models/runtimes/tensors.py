"""How texts become tensors and tensors outputs, declared in the settings of an ``onnx`` or ``torch`` model.

    settings:
      encode: characters         # or words, or bytes
      vocabulary: vocabulary.txt # one token a line, its number is its line from 0; not for bytes
      input: ids                 # name of the tensor [n, length], int64; mask and lengths may be named, too
      output: logits             # name of the tensor [n, …]
      decode: label              # or vector, or text
      labels: [negative, positive]

Everything in a batch is one run: shorter texts are filled up with ``padding``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from haat.kernel.errors import EngineFailed
from haat.models.hosted import Output
from haat.models.runtimes.port import Input

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_MOST_TOKENS = 1_000_000


class Mapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings. Numbers are of tokens; ``top`` bounds how many labels ``scores`` has, 0 for all."""

    encode: Literal["characters", "words", "bytes"] = "characters"
    vocabulary: str = ""
    lowercase: bool = False
    padding: int = 0
    unknown: int = 1
    begin: int = -1
    end: int = -1
    max_length: int = 512
    fixed_length: bool = False
    input: str = "ids"
    mask: str = ""
    lengths: str = ""
    output: str = ""
    decode: Literal["label", "vector", "text"] = "label"
    labels: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    top: int = 0
    member: str = ""
    normalise: bool = False
    output_vocabulary: str = ""


def read_settings(settings: Mapping[str, Any]) -> Mapped:
    """Return the settings; raise ValueError as ``settings.field: sentence``."""
    try:
        return msgspec.convert(settings, Mapped)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").removeprefix(".")
        raise ValueError(f"settings{'.' + field if field else ''}: {message[:1].lower()}{message[1:]}") from error


def check_settings(settings: Mapping[str, Any], kind: str, folder: Path) -> list[str]:
    """Return what is wrong with the settings, each as ``field: sentence``."""
    try:
        mapped = read_settings(settings)
    except ValueError as error:
        return [str(error)]
    found = []
    if kind not in ("text", "text_pair"):
        found.append("kind: must be text or text_pair, tensors are made of nothing else")
    for field in ("vocabulary", "output_vocabulary"):
        name = getattr(mapped, field)
        if name and not _inside(folder, name).is_file():
            found.append(f"settings.{field}: there is no {name} in the folder")
    if mapped.encode != "bytes" and not mapped.vocabulary:
        found.append("settings.vocabulary: must name the file of tokens, one a line")
    if mapped.decode == "label" and not mapped.labels:
        found.append("settings.labels: must name the labels in the order of the output")
    if not 1 <= mapped.max_length <= 100_000:
        found.append("settings.max_length: must be from 1 to 100,000")
    if mapped.top < 0:
        found.append("settings.top: must not be negative")
    return found


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) else folder / "outside" / "of it"


class Tensors:
    """Writes batches as tensors, and reads outputs from tensors."""

    def __init__(self, mapped: Mapped, folder: Path) -> None:
        import numpy

        self._np = numpy
        self._mapped = mapped
        tokens = _tokens(folder, mapped.vocabulary) if mapped.vocabulary else []
        self._ids = {token: index for index, token in enumerate(tokens)}
        self._written = _tokens(folder, mapped.output_vocabulary) if mapped.output_vocabulary else tokens

    def tensors(self, inputs: Sequence[Input]) -> dict[str, Array]:
        """Return the model's inputs by name."""
        np, mapped = self._np, self._mapped
        rows = [self._row(one) for one in inputs]
        longest = mapped.max_length if mapped.fixed_length else max(1, *map(len, rows)) if rows else 1
        ids = np.full((len(rows), longest), mapped.padding, np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        lengths = np.array([len(row) for row in rows], np.int64)
        found = {mapped.input: ids}
        if mapped.lengths:
            found[mapped.lengths] = lengths
        if mapped.mask:
            found[mapped.mask] = (np.arange(longest)[None, :] < lengths[:, None]).astype(np.int64)
        return found

    def _row(self, one: Input) -> list[int]:
        mapped = self._mapped
        text = f"{one.text}\n{one.other}" if one.other else one.text
        if mapped.lowercase:
            text = text.lower()
        if mapped.encode == "bytes":
            row = list(text.encode())
        else:
            parts = text if mapped.encode == "characters" else text.split()
            row = [self._ids.get(part, mapped.unknown) for part in parts]
        begin = [mapped.begin] if mapped.begin >= 0 else []
        end = [mapped.end] if mapped.end >= 0 else []
        return [*begin, *row[: max(0, mapped.max_length - len(begin) - len(end))], *end]

    def outputs(self, tensor: Array, count: int) -> list[Output]:
        """Return one output an input; raise EngineFailed for a tensor of another shape."""
        np, mapped = self._np, self._mapped
        values = np.asarray(tensor)
        if values.ndim < 1 or values.shape[0] != count:
            raise EngineFailed(f"The model gave {values.shape[0] if values.ndim else 0} rows for {count} inputs.")
        if mapped.decode == "text":
            return [{mapped.member or "text": self._text(row)} for row in values.reshape(count, -1)]
        values = values.astype(np.float64)
        if not np.isfinite(values).all():
            raise EngineFailed("The model gave a number that is none (NaN or infinite); the call is not billed.")
        if mapped.decode == "vector":
            return [{mapped.member or "embedding": self._vector(row).tolist()} for row in values.reshape(count, -1)]
        return [self._label(row) for row in values.reshape(count, -1)]

    def _text(self, row: Array) -> str:
        mapped = self._mapped
        special = {mapped.padding, mapped.begin, mapped.end}
        ids: list[int] = []
        for value in row.astype(self._np.int64).tolist():
            if value == mapped.end:
                break
            if value not in special:
                ids.append(value)
        if mapped.encode == "bytes" and not self._written:
            return bytes(value for value in ids if 0 <= value < 256).decode("utf-8", "replace")
        joint = " " if mapped.encode == "words" else ""
        return joint.join(self._written[value] for value in ids if 0 <= value < len(self._written))

    def _vector(self, row: Array) -> Array:
        if not self._mapped.normalise:
            return row
        length = float(self._np.linalg.norm(row))
        return row / length if length else row

    def _label(self, row: Array) -> Output:
        np, mapped = self._np, self._mapped
        if len(row) != len(mapped.labels):
            raise EngineFailed(f"The model gave {len(row)} scores for {len(mapped.labels)} labels.")
        if mapped.activation == "softmax":
            scores = np.exp(row - row.max())
            scores /= scores.sum()
        elif mapped.activation == "sigmoid":
            scores = 1 / (1 + np.exp(-np.clip(row, -500, 500)))
        else:
            scores = row
        order = np.argsort(-scores, kind="stable")[: mapped.top or None].tolist()
        best = order[0]
        return {
            mapped.member or "label": mapped.labels[best],
            "score": round(float(scores[best]), 6),
            "scores": {mapped.labels[index]: round(float(scores[index]), 6) for index in order},
        }


def _tokens(folder: Path, name: str) -> list[str]:
    tokens = (folder / name).read_text(encoding="utf-8").split("\n")
    if tokens and tokens[-1] == "":
        tokens.pop()
    if len(tokens) > _MOST_TOKENS:
        raise EngineFailed(f"{name} has more than {_MOST_TOKENS:,} tokens.")
    return tokens
