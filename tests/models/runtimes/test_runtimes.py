"""Each runtime runs its models, and says what is wrong in a sentence."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from haat.kernel.errors import AddressForbidden, EngineFailed, EngineMissing, EngineTimeout, HaatError, Overloaded
from haat.models.manifest import Manifest
from haat.models.runtimes import BUILT_IN, runtime_named
from haat.models.runtimes.http import NETWORKS
from haat.models.runtimes.port import Input
from haat.models.trial import answer_sample
from models.runtimes.folders import folder_with, from_template, python_model, read_manifest

TEXTS = [Input(text="बहुत अच्छा"), Input(text="bad"), Input(text="very nice work")]


def run(manifest: Manifest, folder: Path, inputs: list[Input]) -> list[Any]:
    runner = runtime_named(manifest.runtime).open(manifest, folder)
    try:
        return list(runner.predict(inputs))
    finally:
        runner.close()


def test_every_name_leads_to_a_runtime_and_others_are_refused() -> None:
    assert {runtime_named(name).name for name in BUILT_IN} == set(BUILT_IN)
    with pytest.raises(EngineMissing, match="No runtime is called perl"):
        runtime_named("perl")


# --- python ---------------------------------------------------------------------------------------


def test_a_class_is_loaded_once_and_knows_its_settings(tmp_path: Path) -> None:
    code = (
        "class M:\n def load(self): self.n = self.settings['n']; self.here = self.folder.name\n"
        " def predict(self, inputs): return [{'n': self.n, 'here': self.here, 'text': i.text} for i in inputs]\n"
        " def stream(self, one): yield from (part for part in one.text)\n"
    )
    manifest, folder = python_model(tmp_path / "m", code, entry="model:M", settings={"n": 3}, streams=True)
    runner = runtime_named("python").open(manifest, folder)
    assert runner.predict([Input(text="a")]) == [{"n": 3, "here": "m", "text": "a"}]
    assert list(runner.stream(Input(text="ab"))) == [{"text": "a"}, {"text": "b"}]


def test_two_models_may_call_their_modules_alike(tmp_path: Path) -> None:
    for name in ("one", "two"):
        manifest, folder = python_model(tmp_path / name, f"def predict(inputs): return ['{name}' for _ in inputs]")
        assert run(manifest, folder, [Input()]) == [{"text": name}]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("other = 1", "has no predict"),
        ("predict = 1", "has no method `predict`"),
        ("def predict(inputs): return 'one'", "one output instead of a list"),
    ],
)
def test_code_that_is_no_model_is_told_so(tmp_path: Path, code: str, sentence: str) -> None:
    with pytest.raises(EngineFailed, match=sentence):
        run(*python_model(tmp_path, code), [Input()])


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ("[]", "gave 0 outputs for 1 input;"),
        ("[{}, {}, {}]", "gave 3 outputs for 1 input;"),
        ("[{'score': float('nan')}, {}]", "output.score is nan"),
        ("[{'text': '\\ud800'}, {}]", "lone surrogate"),
        ("[{'x': {1, 2}}, {}]", "of the type set"),
        ("[3, {}]", "type int, not an object"),
        ("1 / 0", "failed with ZeroDivisionError"),
    ],
)
def test_what_a_model_may_not_answer_is_told_so(tmp_path: Path, returned: str, sentence: str) -> None:
    code = f"def predict(inputs):\n    print('noise')\n    return {returned}"
    said = "name: m\nruntime: python\nentry: model:predict\nsample: {input: [{text: a}, {text: b}]}\n"
    with pytest.raises(EngineFailed, match=sentence):
        answer_sample(folder_with(tmp_path, {"model.py": code, "haat-model.yaml": said}))


def test_a_model_that_can_not_be_opened_or_hangs_is_told_so(tmp_path: Path) -> None:
    said = "name: m\nruntime: python\nentry: model:predict\nsample: {input: [{text: a}]}\ntimeout_seconds: 0.2\n"
    folder = folder_with(tmp_path, {"model.py": "1 / 0", "haat-model.yaml": said})
    with pytest.raises(EngineFailed, match="can't be loaded: it fails with ZeroDivisionError"):
        answer_sample(folder)
    (folder / "model.py").write_text("import time\ndef predict(inputs): time.sleep(30)")
    with pytest.raises(EngineTimeout):
        answer_sample(folder)


# --- onnx and torch -------------------------------------------------------------------------------


def test_a_batch_of_texts_is_one_run_and_each_has_its_own_answer(tmp_path: Path) -> None:
    folder = from_template(tmp_path, "onnx")
    manifest = read_manifest(folder)
    together = run(manifest, folder, TEXTS)
    assert [output["label"] for output in together] == ["good", "bad", "good"]
    for output, one in zip(together, TEXTS, strict=True):
        [alone] = run(manifest, folder, [one])
        assert alone["label"] == output["label"]
        assert math.isclose(alone["score"], output["score"], abs_tol=1e-5)  # what it is padded with counts nothing


def test_the_template_is_what_its_training_makes(tmp_path: Path) -> None:
    folder = from_template(tmp_path, "onnx")
    manifest = read_manifest(folder)
    before = run(manifest, folder, TEXTS)
    spec = importlib.util.spec_from_file_location("train_template", folder / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()
    assert [output["label"] for output in run(manifest, folder, TEXTS)] == [output["label"] for output in before]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"labels": ["one"]}, "2 scores for 1 labels"),
        ({"mask": ""}, "The model takes ids, mask"),
        ({"output": "other"}, "gives logits"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_told_so(
    tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    folder = from_template(tmp_path, "onnx")
    sound = read_manifest(folder)
    manifest = Manifest(name="a", runtime="onnx", entry=sound.entry, settings={**sound.settings, **settings})
    with pytest.raises(EngineFailed, match=sentence):
        run(manifest, folder, TEXTS)


def test_a_file_that_is_no_model_is_told_so(tmp_path: Path) -> None:
    folder = from_template(tmp_path, "onnx")
    (folder / "model.onnx").write_bytes(b"rubbish")
    with pytest.raises(EngineFailed, match="is no model that ONNX Runtime can load"):
        run(read_manifest(folder), folder, TEXTS)


def test_vectors_and_texts_come_out_of_tensors(tmp_path: Path) -> None:
    import numpy as np

    from haat.models.runtimes.tensors import Tensors, read_settings

    folder = folder_with(tmp_path, {"v.txt": "<pad>\n<unknown>\na\nb\n"})
    vector = Tensors(read_settings({"vocabulary": "v.txt", "decode": "vector", "normalise": True}), folder)
    assert vector.outputs(np.array([[3.0, 4.0]]), 1) == [{"embedding": [0.6, 0.8]}]
    text = Tensors(read_settings({"vocabulary": "v.txt", "decode": "text", "end": 1}), folder)
    assert text.outputs(np.array([[2, 3, 0, 1, 2]]), 1) == [{"text": "ab"}]
    with pytest.raises(EngineFailed, match="NaN"):
        vector.outputs(np.array([[math.nan]]), 1)
    with pytest.raises(EngineFailed, match="1 rows for 2"):
        vector.outputs(np.array([[1.0]]), 2)
    assert vector.tensors([Input(text="abx"), Input(text="")])["ids"].tolist() == [[2, 3, 1], [0, 0, 0]]


@pytest.mark.parametrize(("name", "module", "words"), [("onnx", "onnxruntime", "ONNX"), ("torch", "torch", "PyTorch")])
def test_a_library_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, words: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *more: None if wanted == module else find(wanted, *more)
    )
    sentence = runtime_named(name).missing(Manifest(name="a", runtime=name, entry="model"))
    assert sentence is not None
    assert words in sentence and f"pip install 'haat[{name}]'" in sentence


def test_a_torch_model_names_a_file_that_is_there(tmp_path: Path) -> None:
    folder = from_template(tmp_path, "torch")
    manifest = Manifest(name="a", runtime="torch", entry="model.pkl", settings={"encode": "bytes", "labels": ["a"]})
    [problem] = runtime_named("torch").check(manifest, folder)
    assert problem.startswith("entry: there is no model.pkl")


# --- command --------------------------------------------------------------------------------------


def command(folder: Path, entry: str, **settings: Any) -> Manifest:
    manifest = Manifest(name="a", runtime="command", entry=entry, settings=settings, timeout_seconds=5)
    assert runtime_named("command").check(manifest, folder) == []
    return manifest


def test_a_program_answers_texts_one_by_one_or_a_line_each(tmp_path: Path) -> None:
    inputs = [Input(text="abc"), Input(text="नमस्ते"), Input(text="two\nlines")]
    assert run(command(tmp_path, "cat"), tmp_path, inputs) == [{"text": one.text} for one in inputs]
    lines = run(command(tmp_path, "cat", mode="lines", output="said"), tmp_path, inputs)
    assert lines == [{"said": "abc"}, {"said": "नमस्ते"}, {"said": "two lines"}]


def test_languages_are_arguments_and_no_shell_reads_them(tmp_path: Path) -> None:
    inputs = [Input(text="x", config={"source": source}) for source in ("hi", "ta; id", "hi")]
    assert [one["text"] for one in run(command(tmp_path, "echo {source}"), tmp_path, inputs)] == ["hi", "ta; id", "hi"]


@pytest.mark.parametrize(
    ("entry", "settings", "error"),
    [
        ("false", {}, EngineFailed),
        ("head -n 1", {"mode": "lines"}, EngineFailed),
        ("printf '\\377'", {}, EngineFailed),
        ("no-such-program", {}, EngineMissing),
    ],
)
def test_a_program_that_fails_is_told_so(
    tmp_path: Path, entry: str, settings: dict[str, str], error: type[HaatError]
) -> None:
    with pytest.raises(error):
        run(command(tmp_path, entry, **settings), tmp_path, [Input(text="a"), Input(text="b")])


@pytest.mark.parametrize("entry", ["", "cat 'open", "cat {home}", "./missing.sh"])
def test_a_command_line_that_is_none_is_told_so(tmp_path: Path, entry: str) -> None:
    manifest = Manifest(name="a", runtime="command", entry=entry)
    assert runtime_named("command").check(manifest, tmp_path)[0].startswith("entry: ")


# --- http -----------------------------------------------------------------------------------------


class _Remote(BaseHTTPRequestHandler):
    """Answers in each dialect; what the path says makes it misbehave."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, headers, answer = 200, {}, b"{"
        if self.path.endswith("/invoke"):
            answer = json.dumps({"output": [{"text": one["text"].upper()} for one in body["input"]]}).encode()
        elif self.path.endswith("/chat/completions"):
            said = f"{body['messages'][0]['content']}|{body['messages'][-1]['content']}|{self.headers['X-Key']}"
            answer = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        elif self.path.endswith("/infer"):
            [tensor] = body["inputs"]
            output = {"name": "out", "datatype": "BYTES", "shape": tensor["shape"], "data": tensor["data"]}
            answer = json.dumps({"model_name": "m", "outputs": [output]}).encode()
        elif self.path.endswith("/busy"):
            status, headers = 503, {"Retry-After": "7"}
        elif self.path.endswith("/moved"):
            status, headers = 307, {"Location": "http://127.0.0.1:1/"}
        elif self.path.endswith("/nan"):
            answer = b'{"output": [{"score": NaN}]}'
        elif self.path.endswith("/large"):
            answer = b'"' + b"x" * (11 * 1024 * 1024) + b'"'
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(NETWORKS, "127.0.0.0/8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Remote)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def http(address: str, **settings: Any) -> Manifest:
    manifest = Manifest(name="a", runtime="http", entry=address, network=True, settings=settings, timeout_seconds=10)
    assert runtime_named("http").check(manifest, Path()) == []
    return manifest


def test_a_remote_model_is_asked_in_its_dialect(remote: str, tmp_path: Path) -> None:
    inputs = [Input(text="a", config={"source": "hi"}), Input(text="b"), Input(text="c", config={"source": "hi"})]
    assert run(http(remote), tmp_path, inputs) == [{"text": "A"}, {"text": "B"}, {"text": "C"}]
    chat = http(remote, dialect="openai", model="m", prompt="from {source}", headers={"X-Key": "k"})
    assert run(chat, tmp_path, inputs[:1]) == [{"text": "from hi|a|k"}]
    tensors = {"model": "m", "inputs": {"text": "in"}, "outputs": {"text": "out"}}
    plain = [Input(text="a"), Input(text="b")]
    assert run(http(remote, dialect="inference", tensors=tensors), tmp_path, plain) == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        ("/broken", EngineFailed, "not JSON"),
        ("/nan", EngineFailed, "not JSON"),
        ("/moved", EngineFailed, "answered 307"),
        ("/large", EngineFailed, "larger than"),
        ("/busy", Overloaded, "Retry-After"),
    ],
)
def test_what_a_remote_model_does_wrong_is_told(
    remote: str, tmp_path: Path, path: str, error: type[HaatError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence) as caught:
        run(http(remote, path=path), tmp_path, [Input(text="a")])
    if error is Overloaded:
        assert caught.value.extensions["retry_after"] == 7


def test_addresses_that_are_not_public_are_not_dialled(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NETWORKS)
    with pytest.raises(AddressForbidden):
        run(http(remote), tmp_path, [Input(text="a")])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"network": False}, "network"),
        ({"entry": "ftp://example.com"}, "entry"),
        ({"settings": {"dialect": "smoke"}}, "settings.dialect"),
        ({"settings": {"dialect": "openai"}}, "settings.model"),
        ({"settings": {"headers": {"Host": "x"}}}, "settings.headers.Host"),
        ({"settings": {"headers": {"X": "a\r\nb"}}}, "settings.headers.X"),
        ({"settings": {"dialect": "inference"}}, "settings.tensors"),
    ],
)
def test_a_remote_model_that_can_not_be_asked_is_told_so(fields: dict[str, Any], field: str) -> None:
    manifest = Manifest(**{"name": "a", "runtime": "http", "entry": "https://example.com", "network": True, **fields})
    assert runtime_named("http").check(manifest, Path())[0].startswith(f"{field}: ")


def test_a_runner_is_asked_outside_of_an_event_loop(remote: str, tmp_path: Path) -> None:
    async def inside() -> list[Any]:
        return await asyncio.to_thread(run, http(remote), tmp_path, [Input(text="a")])

    assert asyncio.run(inside()) == [{"text": "A"}]
