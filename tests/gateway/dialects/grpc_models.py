"""A model server that speaks the Open Inference Protocol over gRPC, strictly, in a process of its own.

    python grpc_models.py LOG [CERTIFICATE KEY]

It stands on the messages and the service that come with Triton's client, so that a mistake in ours can't hide. The
port is printed; what it is asked, and what is cancelled, is written to LOG, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

LANGUAGES = ("INPUT_TEXT", "INPUT_LANGUAGE_ID", "OUTPUT_LANGUAGE_ID")
TEXT = {"TEXT": ("BYTES", [-1, 1])}
MODELS: dict[str, tuple[dict[str, tuple[str, list[int]]], dict[str, tuple[str, list[int]]]]] = {
    "nmt": ({name: ("BYTES", [-1, 1]) for name in LANGUAGES}, {"OUTPUT_TEXT": ("BYTES", [-1, 1])}),
    "typed": ({name: ("BYTES", [-1, 1]) for name in LANGUAGES}, {"OUTPUT_TEXT": ("BYTES", [-1, 1])}),
    "voice": ({"SIGNAL": ("FP32", [-1, -1])}, {"WAVE": ("FP32", [-1, -1]), "SCORE": ("FP32", [-1, 1])}),
    "sounds": ({"AUDIO": ("BYTES", [-1, 1])}, {"ECHO": ("BYTES", [-1, 1])}),
    "moody": (TEXT, {"SAID": ("BYTES", [-1, 1])}),
    "odd": (TEXT, {"SAID": ("BYTES", [-1, 1])}),
    "narrator": (TEXT, {"PART": ("BYTES", [-1, 1])}),
}
"""Inputs and outputs by model. `narrator` answers in parts."""
VERSIONS = ("1", "3")


class Wrong(Exception):
    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # it is generated
    def __init__(self, log: Path) -> None:
        self._log = log.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def note(self, **what: Any) -> None:
        with self._lock:
            self._log.write(json.dumps(what) + "\n")
            self._log.flush()

    def ServerLive(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=True)

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="models", version="9", extensions=["x"])

    def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=request.name in MODELS)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        inputs, outputs = self._model(request.name, request.version, context)

        def listed(tensors: Any) -> Any:
            return [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in tensors.items()]

        return service_pb2.ModelMetadataResponse(
            name=request.name, versions=VERSIONS, platform="python", inputs=listed(inputs), outputs=listed(outputs)
        )

    def ModelConfig(self, request: Any, context: Any) -> Any:
        if request.name == "typed":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        policy = model_config_pb2.ModelTransactionPolicy(decoupled=request.name == "narrator")
        config = model_config_pb2.ModelConfig(name=request.name, model_transaction_policy=policy)
        return service_pb2.ModelConfigResponse(config=config)

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        models = [{"name": name, "version": "3", "state": "READY"} for name in MODELS]
        return service_pb2.RepositoryIndexResponse(models=models)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        if request.model_name == "narrator":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "ModelInfer RPC doesn't support decoupled models")
        values = self._asked(request, context)
        if request.model_name == "moody":
            return self._mood(request, values, context)
        if request.model_name == "odd":
            return self._odd(values)
        context.send_initial_metadata((("x-answers", "1"),))
        if request.model_name in ("nmt", "typed"):
            rows = zip(values["INPUT_LANGUAGE_ID"], values["OUTPUT_LANGUAGE_ID"], values["INPUT_TEXT"], strict=True)
            said = [source + b">" + target + b":" + text for source, target, text in rows]
            if request.model_name == "typed":
                return self._typed(request, said)
            return response(request, {"OUTPUT_TEXT": ("BYTES", [len(said), 1], packed(said))})
        if request.model_name == "sounds":
            echo = values["AUDIO"]
            return response(request, {"ECHO": ("BYTES", [len(echo), 1], packed(echo))})
        signal = values["SIGNAL"]
        count = request.inputs[0].shape[0]
        wave = ("FP32", [count, len(signal) // count], struct.pack(f"<{len(signal)}f", *signal))
        return response(
            request, {"WAVE": wave, "SCORE": ("FP32", [count, 1], struct.pack(f"<{count}f", *[0.5] * count))}
        )

    def _typed(self, request: Any, said: list[bytes]) -> Any:
        """Answer in typed contents, as MLServer does."""
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="3", id=request.id)
        output = answer.outputs.add(name="OUTPUT_TEXT", datatype="BYTES", shape=[len(said), 1])
        output.contents.bytes_contents.extend(said)
        output.parameters["content_type"].string_param = "str"
        return answer

    def _mood(self, request: Any, values: Any, context: Any) -> Any:
        """Do as the text says: fail with a status, wait, report a use, or answer what is left of the time."""
        word, _, rest = values["TEXT"][0].decode().partition(" ")
        if word == "fail":
            context.abort(getattr(grpc.StatusCode, rest.split()[0]), " ".join(rest.split()[1:]))
        if word == "wait":
            context.add_callback(lambda: self.note(ended=rest))
            ends = time.monotonic() + float(rest)
            while context.is_active() and time.monotonic() < ends:
                time.sleep(0.01)
        if word == "usage":
            context.set_trailing_metadata((("x-haat-usage", rest),))
        if word == "die":
            os._exit(1)
        if word == "large":
            return response(request, {"SAID": ("BYTES", [1, 1], packed([b"x" * int(rest)]))})
        said = [f"{context.time_remaining():.1f}".encode()] if word == "left" else values["TEXT"]
        return response(request, {"SAID": ("BYTES", [len(said), 1], packed(said))})

    def _odd(self, values: Any) -> Any:
        """Answer what is no answer, as the text says."""
        word = values["TEXT"][0].decode()
        answer = service_pb2.ModelInferResponse(model_name="odd", model_version="3")
        if word != "nothing":
            kind = {"datatype": "FP32", "unknown": "BF16"}.get(word, "BYTES")
            answer.outputs.add(name="SAID", datatype=kind, shape=[-1 if word == "shape" else 1])
        if word in ("breaks", "shape", "datatype", "unknown"):
            answer.raw_output_contents.append(b"\x09\0\0\0abcd")
        if word == "more":
            answer.raw_output_contents.extend([packed([b"a"]), packed([b"b"])])
        return answer

    def ModelStreamInfer(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            if request.model_name != "narrator":
                sentence = f"Request for unknown model: '{request.model_name}' is not found"
                yield service_pb2.ModelStreamInferResponse(error_message=sentence)
                return
            values = self._asked(request, context)
            context.add_callback(lambda: self.note(ended="stream"))
            for word in values["TEXT"][0].decode().split():
                command, _, rest = word.partition(":")
                if command == "fail":
                    context.abort(getattr(grpc.StatusCode, rest), "it went wrong")
                elif command == "error":
                    yield service_pb2.ModelStreamInferResponse(error_message=rest)
                elif command == "wait":
                    ends = time.monotonic() + float(rest)
                    while context.is_active() and time.monotonic() < ends:
                        time.sleep(0.01)
                elif command == "die":
                    os._exit(1)
                elif command == "shape":
                    yield part(request, packed([b"a", b"b"]), [2])
                elif command == "raw":
                    yield part(request, packed([bytes.fromhex(rest)]), [1, 1])
                elif command == "flood":
                    for number in range(int(rest)):
                        self.note(sent=number)
                        yield part(request, packed([b"x" * 60_000]), [1, 1])
                else:
                    yield part(request, packed([word.encode()]), [1, 1])
            if request.parameters["triton_enable_empty_final_response"].bool_param:
                final = service_pb2.ModelInferResponse(model_name="narrator", model_version="3", id=request.id)
                final.parameters["triton_final_response"].bool_param = True
                yield service_pb2.ModelStreamInferResponse(infer_response=final)

    # --- what is asked ----------------------------------------------------------------------------

    def _model(self, name: str, version: str, context: Any) -> Any:
        if name not in MODELS or (version and version not in VERSIONS):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        return MODELS[name]

    def _asked(self, request: Any, context: Any) -> dict[str, list[Any]]:
        """Return the tensors' elements by name, texts as bytes; end the call for what the model doesn't take."""
        inputs, _ = self._model(request.model_name, request.model_version, context)
        try:
            values = elements(request, inputs)
        except Wrong as error:
            context.abort(error.code, str(error))
        parameters = {
            name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in request.parameters.items()
        }
        self.note(
            model=request.model_name,
            version=request.model_version,
            parameters=parameters,
            metadata=dict(context.invocation_metadata()),
            shapes={one.name: list(one.shape) for one in request.inputs},
            outputs=[one.name for one in request.outputs],
            values={
                name: [v.decode("latin-1") if isinstance(v, bytes) else v for v in one] for name, one in values.items()
            },
        )
        return values


def elements(request: Any, inputs: dict[str, tuple[str, list[int]]]) -> dict[str, list[Any]]:
    """Read the tensors of a request by the protocol alone; raise Wrong."""
    if len(request.raw_input_contents) != len(request.inputs):
        _refuse(f"{len(request.raw_input_contents)} raw contents for {len(request.inputs)} inputs")
    values: dict[str, list[Any]] = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if tensor.name not in inputs:
            _refuse(f"unexpected inference input '{tensor.name}' for model '{request.model_name}'")
        kind, wanted = inputs[tensor.name]
        shape = list(tensor.shape)
        fits = len(shape) == len(wanted) and all(one in (-1, size) for size, one in zip(shape, wanted, strict=True))
        if tensor.datatype != kind or not fits:
            _refuse(f"'{tensor.name}' is {tensor.datatype}{shape}, the model takes {kind}{wanted}")
        found: list[Any] = []
        if kind == "BYTES":
            while raw:
                length = int.from_bytes(raw[:4], "little")
                found.append(raw[4 : 4 + length])
                raw = raw[4 + length :]
        else:
            found = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        count = 1
        for size in shape:
            count *= size
        if len(found) != count:
            _refuse(f"'{tensor.name}' has {len(found)} elements for {shape}")
        values[tensor.name] = found
    if values.keys() != inputs.keys():
        _refuse(f"expected {sorted(inputs)}, got {sorted(values)}")
    return values


def _refuse(sentence: str) -> NoReturn:
    raise Wrong(grpc.StatusCode.INVALID_ARGUMENT, sentence)


def packed(values: list[bytes]) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def response(request: Any, tensors: dict[str, tuple[str, list[int], bytes]]) -> Any:
    answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="3", id=request.id)
    wanted = [output.name for output in request.outputs] or list(tensors)
    for name in wanted:
        kind, shape, raw = tensors[name]
        answer.outputs.add(name=name, datatype=kind, shape=shape)
        answer.raw_output_contents.append(raw)
    return answer


def part(request: Any, raw: bytes, shape: list[int]) -> Any:
    return service_pb2.ModelStreamInferResponse(infer_response=response(request, {"PART": ("BYTES", shape, raw)}))


def main() -> None:
    log, *tls = sys.argv[1:]
    server = grpc.server(ThreadPoolExecutor(64), options=[("grpc.max_receive_message_length", 4 * 1024 * 1024)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(Path(log)), server)
    if tls:
        certificate, key = (Path(one).read_bytes() for one in tls)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
