"""Makes calls with `tritonclient.http`, in a process of its own: it patches sockets (gevent), which tests must not.

    python triton_calls.py PORT KEY < calls.json

Each call is `{"do": a method's name, …}`; what came back is printed as one JSON list.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import numpy
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


def main() -> None:
    port, key = sys.argv[1:]
    client = InferenceServerClient(f"127.0.0.1:{port}")
    headers = {"Authorization": f"Bearer {key}"}
    print(json.dumps([attempt(client, headers, call) for call in json.load(sys.stdin)]))


def attempt(client: Any, headers: dict[str, str], call: dict[str, Any]) -> Any:
    try:
        if call.pop("do") != "infer":
            return plain(client, headers, call)
        return infer(client, headers, call)
    except InferenceServerException as error:
        return {"error": error.message(), "status": error.status()}


def plain(client: Any, headers: dict[str, str], call: dict[str, Any]) -> Any:
    method, with_key = call.pop("method"), call.pop("key", True)
    return getattr(client, method)(**call, headers=headers if with_key else {})


def infer(client: Any, headers: dict[str, str], call: dict[str, Any]) -> Any:
    inputs = [tensor(**one) for one in call.pop("inputs")]
    outputs = call.pop("outputs", None)
    wanted = [InferRequestedOutput(**one) for one in outputs] if outputs else None
    result = client.infer(call.pop("model"), inputs, outputs=wanted, headers=headers, **call)
    response = result.get_response()
    found = {}
    for output in response["outputs"]:
        values = result.as_numpy(output["name"])
        texts = [one.encode() if isinstance(one, str) else one for one in values.flatten().tolist()]
        flat = [base64.b64encode(one).decode() if isinstance(one, bytes) else one for one in texts]
        binary = "binary_data_size" in output.get("parameters", {})
        found[output["name"]] = {"shape": list(values.shape), "data": flat, "binary": binary}
    return {name: value for name, value in response.items() if name != "outputs"} | {"outputs": found}


def tensor(name: str, shape: list[int], data: list[str], binary: bool = True, datatype: str = "BYTES") -> InferInput:
    """`data` of binary BYTES is base64; in JSON mode it goes as it is."""
    made = InferInput(name, shape, datatype)
    if datatype != "BYTES":
        values = numpy.array(data, dtype=numpy.float32)
    else:
        values = numpy.array([base64.b64decode(one) if binary else one.encode() for one in data], dtype=object)
    made.set_data_from_numpy(values.reshape(shape), binary_data=binary)
    return made


if __name__ == "__main__":
    main()
