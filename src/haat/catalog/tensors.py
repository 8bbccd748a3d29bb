"""What a provider declares of a model behind the Open Inference Protocol, and how such a model is tried."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from haat.infra.inference.asking import Asked, ask, error_in, read_answer
from haat.infra.inference.mapping import SAMPLES, TensorMap
from haat.infra.inference.tensors import DATATYPES, SIZE_HEADER, Unfit
from haat.kernel.errors import HaatError

MOST_FIELDS = 16
COUNTED_UNITS = ("requests", "characters", "audio_seconds", "images", "bytes")
"""What the gateway can count of such a model's calls by itself."""

_Field = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9_]{0,63})$")]
_Tensor = Annotated[str, Field(min_length=1, max_length=200)]
_Scalar = str | int | float | bool
_Model = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\S+$")]


class TensorMapDraft(BaseModel):
    """How a model is asked a task; see `haat.infra.inference.mapping.TensorMap`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: _Model
    version: Annotated[str, Field(max_length=64, pattern=r"^\S*$")] = ""
    inputs: Annotated[dict[_Field, _Tensor], Field(min_length=1, max_length=MOST_FIELDS)]
    outputs: Annotated[dict[_Field, _Tensor], Field(min_length=1, max_length=MOST_FIELDS)]
    datatypes: Annotated[dict[_Tensor, str], Field(max_length=2 * MOST_FIELDS)] = {}
    defaults: Annotated[dict[_Field, _Scalar], Field(max_length=MOST_FIELDS)] = {}
    parameters: Annotated[dict[str, _Scalar], Field(max_length=MOST_FIELDS)] = {}
    languages: Annotated[dict[str, str], Field(max_length=100)] = {}
    rank: Literal[1, 2] = 2
    most_items: Annotated[int, Field(ge=0, le=1000)] = 0
    sample_rate: Annotated[int, Field(ge=4_000, le=192_000)] = 16_000
    base64: bool = False
    decoupled: bool = False

    @model_validator(mode="after")
    def _goes_together(self) -> TensorMapDraft:
        tensors = self.tensor_map()
        known = {*self.inputs.values(), *self.outputs.values()}
        if not tensors.items:
            raise ValueError("`inputs` must name the tensor of `text`, `audio` or `image`")
        if "*" in self.inputs or len(set(self.inputs.values())) != len(self.inputs):
            raise ValueError("each of `inputs` is one field in one tensor")
        if not set(self.datatypes) <= known or not set(self.datatypes.values()) <= DATATYPES:
            raise ValueError("`datatypes` are those of tensors in `inputs` and `outputs`, such as FP32")
        for field, tensor in tensors.items.items():
            if tensors.datatype(tensor) not in (("BYTES", "FP32") if field == "audio" else ("BYTES",)):
                raise ValueError(f"the tensor of `{field}` can't be {tensors.datatype(tensor)}")
        if SAMPLES in self.inputs and tensors.datatype(self.inputs.get("audio", "")) == "BYTES":
            raise ValueError("`samples` goes with `audio` of FP32")
        if not set(self.defaults) <= set(tensors.options):
            raise ValueError("`defaults` are for fields in `inputs` that are options")
        return self

    def tensor_map(self) -> TensorMap:
        """Return it as the gateway has it."""
        return TensorMap(**self.model_dump())


def stored(policy: Mapping[str, Any]) -> TensorMap | None:
    """Return the tensors in a stored policy of a version, None when it has none."""
    return msgspec.convert(policy["tensors"], TensorMap) if policy.get("tensors") else None


class Trial:
    """One try of a model: a task, asked in its tensors."""

    def __init__(self, tensors: TensorMap, task: Any) -> None:
        """Raise ValueError, with a sentence, for a task that can't be asked so."""
        self._tensors = tensors
        try:
            self._asked: Asked = ask(tensors, json.dumps(task).encode())
        except HaatError as error:
            errors = error.extensions.get("errors")
            raise ValueError(f"{errors[0]['field']}: {errors[0]['message']}" if errors else error.detail) from error

    @property
    def path(self) -> str:
        """Where it is asked, below the endpoint."""
        return self._tensors.path

    @property
    def body(self) -> bytes:
        return self._asked.body

    @property
    def headers(self) -> dict[str, str]:
        """What goes with that body."""
        if self._asked.json_size < 0:
            return {"Content-Type": "application/json"}
        return {"Content-Type": "application/octet-stream", SIZE_HEADER: str(self._asked.json_size)}

    def read(self, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer in the task schema, of one in several parts the first; raise ValueError for none."""
        if self._tensors.decoupled:
            body = _parts(body)[0]
        size = headers.get(SIZE_HEADER)
        try:
            outputs = read_answer(
                self._tensors, body, size.encode("latin-1") if size is not None else None, self._asked.items
            )
        except Unfit as error:
            raise ValueError(f"the answer can't be used: {error}") from error
        return {"output": outputs}


def _parts(body: bytes) -> list[bytes]:
    """Return the parts that a stream of events holds; raise ValueError when it breaks off, or holds none."""
    parts = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    if not parts:
        raise ValueError("the model gave no part of an answer")
    if sentence := error_in(parts[-1]):
        raise ValueError(f"the model broke off its answer: {sentence}")
    return parts
