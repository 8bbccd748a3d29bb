"""What the bridge's messages are is held against those of Triton's client, which nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from gateway.dialects.grpc_rig import Models
from haat.bridge import open_inference_pb2

DESCRIBE = """
import json
from tritonclient.grpc import service_pb2, model_config_pb2
print(json.dumps({**describe(service_pb2.DESCRIPTOR), **describe(model_config_pb2.DESCRIPTOR)}))
"""

CALLS = """
import json, sys
import numpy
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

client = InferenceServerClient("127.0.0.1:" + sys.argv[1])

def text(name, *values):
    tensor = InferInput(name, [len(values), 1], "BYTES")
    tensor.set_data_from_numpy(numpy.array([[value.encode()] for value in values], dtype=object))
    return tensor

found = {"live": client.is_server_live(), "ready": client.is_model_ready("nmt"), "other": client.is_model_ready("x")}
found["index"] = len(client.get_model_repository_index().models)
found["inputs"] = [one.name for one in client.get_model_metadata("nmt").inputs]
found["decoupled"] = client.get_model_config("narrator").config.model_transaction_policy.decoupled
languages = [text("INPUT_LANGUAGE_ID", "hi"), text("OUTPUT_LANGUAGE_ID", "ur")]
said = client.infer("nmt", [text("INPUT_TEXT", "a"), *languages]).as_numpy("OUTPUT_TEXT")
found["said"] = said.tolist()[0][0].decode()
try:
    client.infer("nmt", languages)
except InferenceServerException as error:
    found["refused"] = error.status()
parts = []
client.start_stream(lambda result, error: parts.append(str(error) if error else result.as_numpy("PART")[0][0].decode()))
client.async_stream_infer("narrator", [text("TEXT", "a b")])
client.stop_stream()
found["parts"] = parts
print(json.dumps(found))
"""


def describe(file: Any) -> dict[str, Any]:
    """Return fields by message: number, type, whether it is repeated, and of which message it is."""
    found: dict[str, Any] = {}

    def add(message: Any) -> None:
        fields = message.fields
        found[message.full_name] = {
            one.name: [
                one.number,
                one.type,
                bool(one.message_type and one.message_type.GetOptions().map_entry),
                one.message_type.full_name if one.message_type else "",
            ]
            for one in fields
        }
        for nested in message.nested_types:
            add(nested)

    for message in file.message_types_by_name.values():
        add(message)
    for service in file.services_by_name.values():
        found[service.full_name] = {
            one.name: [one.input_type.full_name, one.output_type.full_name] for one in service.methods
        }
    return found


async def run(script: str, *arguments: str) -> Any:
    def told() -> str:
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout

    return json.loads(await asyncio.to_thread(told))


async def test_every_message_field_and_method_is_the_protocols() -> None:
    import inspect

    theirs = await run(f"from typing import Any\n{inspect.getsource(describe)}\n{DESCRIBE}")
    for name, members in describe(open_inference_pb2.DESCRIPTOR).items():
        for member, meaning in members.items():
            assert theirs[name][member] == meaning, f"{name}.{member}"


async def test_the_tests_model_server_is_of_the_protocol(models: Models) -> None:
    found = await run(CALLS, str(models.port))
    assert found == {
        "live": True,
        "ready": True,
        "other": False,
        "index": 7,
        "inputs": ["INPUT_TEXT", "INPUT_LANGUAGE_ID", "OUTPUT_LANGUAGE_ID"],
        "decoupled": True,
        "said": "hi>ur:a",
        "refused": "StatusCode.INVALID_ARGUMENT",
        "parts": ["a", "b"],
    }
