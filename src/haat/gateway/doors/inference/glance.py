"""What most clients ask, read and answered at a glance: texts in JSON, and a text for each."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from haat.gateway.doors.inference.inference import Inference
from haat.gateway.doors.inference.message import LONGEST_ID, InferRequest
from haat.gateway.doors.inference.plain import Plain, decode_plain, decode_texts
from haat.gateway.doors.inference.tasks import Face
from haat.gateway.doors.visit import reply
from haat.gateway.languages import pair_of
from haat.infra.inference.asking import MOST_ITEMS
from haat.infra.inference.mapping import LANGUAGE_FIELDS

if TYPE_CHECKING:
    from haat.gateway.http.answers import Whole

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Glance(Inference):
    """An `Inference` of a request that leaves nothing to be said."""

    def give(self, answer: Whole) -> None:
        name = self._face.only_text
        texts = _texts_in(answer.body) if name else None
        if texts is None or len(texts) != self._items:
            super().give(answer)
            return
        end = b'}],"id":%b}' % _encode(self._asked.id) if self._asked.id else b"}]}"
        reply(answer, _beginning(self._name, self._version, name, tuple(self._shape)) + _encode(texts) + end)


def _texts_in(body: bytes) -> list[str] | None:
    try:
        return [output.text for output in decode_texts(body).output]
    except _UNREADABLE:
        return None


@lru_cache(1024)
def _beginning(model: str, version: str, output: str, shape: tuple[int, ...]) -> bytes:
    """Return a response up to the texts in it."""
    tensor = {"name": output, "shape": shape, "datatype": "BYTES"}
    whole: bytes = _encode({"model_name": model, "model_version": version, "outputs": [tensor]})
    return whole.removesuffix(b"}]}") + b',"data":'


def glance_at(body: bytes, face: Face, wanted: frozenset[str], name: str, version: str) -> Inference | None:
    """Return what `read_inference` does for a body that can be read at a glance; None for all others, wrong or not."""
    try:
        plain: Plain = decode_plain(body)
    except _UNREADABLE:
        return None
    if len(plain.id) > LONGEST_ID:
        return None
    shape: list[int] = []
    texts: list[str] = []
    named: dict[str, str] = {}
    for tensor in plain.inputs:
        field = face.field_of.get(tensor.name)
        data: list[str] = tensor.data
        size = len(data)
        if field is None or not 1 <= size <= MOST_ITEMS or not _is_a_column(tensor.shape, size):
            return None
        if field == "text" and not shape:
            shape, texts = tensor.shape, data
        elif field in LANGUAGE_FIELDS and field not in named and size == 1:
            named[field] = data[0]
        else:
            return None
    if not texts:
        return None
    for field in wanted:
        if field != "text" and field not in named:
            return None
    task: bytes = _encode({"input": [{"text": text} for text in texts]})
    languages = ""
    if named:
        task = b'%b,"config":%b}' % (task[:-1], _encode(named))
        languages = pair_of(named.get("source", ""), named.get("target", ""), named.get("language", ""))
    asked = InferRequest(plain.id, [], {}, {}, binary=False)
    return Glance(asked, face, shape, len(texts), name, version, task, languages)


def _is_a_column(shape: list[int], size: int) -> bool:
    """Tell whether this is the shape of so many items: [n], [n, 1] or [1, n]."""
    if len(shape) == 1:
        return shape[0] == size
    return len(shape) == 2 and ((shape[0] == size and shape[1] == 1) or (shape[0] == 1 and shape[1] == size))
