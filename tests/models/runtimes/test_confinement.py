"""A model in a confined process can't do what it must not; each here tries."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haat.kernel.errors import EngineMissing
from haat.models.manifest import Manifest
from haat.models.runtimes.confinement import environment_of
from haat.models.runtimes.environments import environment_python
from haat.models.trial import model_in, try_sample
from models.runtimes.folders import folder_with, from_template

PYTHON_MODEL = """
import ctypes, os, pathlib, resource, socket, subprocess, tempfile, threading

def told(action):
    try:
        return repr(action())[:200]
    except BaseException as error:
        return type(error).__name__

def predict(inputs):
    return [{"text": told(lambda: eval(one.text))} for one in inputs]
"""


@pytest.fixture(autouse=True)
def everything_holds(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """What does not hold on this machine a worker logs as a warning: here all does."""
    yield
    assert "haat.models.runtimes.confinement" not in capfd.readouterr().err


def answer(folder: Path, python: str = "") -> list[Any]:
    """Return what the model in a folder answers to its sample, in a worker of the engine."""
    return asyncio.run(try_sample(replace(model_in(folder), python=python))).outputs


def answers(tmp_path: Path, expressions: list[str], fields: str = "", python: str = "") -> list[str]:
    """Return what a Python model got from each expression."""
    inputs = json.dumps([{"text": one} for one in expressions])
    said = f"name: tries\nruntime: python\nentry: model:predict\nsample: {{input: {inputs}}}\n{fields}\n"
    folder = folder_with(tmp_path / "model", {"model.py": PYTHON_MODEL, "haat-model.yaml": said})
    return [output["text"] for output in answer(folder, python)]


def test_a_model_reads_itself_and_writes_only_to_its_own_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secrets" / "master.key"
    secret.parent.mkdir()
    secret.write_text("secret")
    tried = answers(
        tmp_path,
        [
            f"pathlib.Path({str(tmp_path / 'model' / 'model.py')!r}).read_text()[:0]",
            "pathlib.Path('note').write_text('x')",
            "len(tempfile.mkdtemp()) > 0",
            f"pathlib.Path({str(secret)!r}).read_text()",
            f"os.listdir({str(tmp_path)!r})",
            f"pathlib.Path({str(tmp_path / 'model' / 'new')!r}).write_text('x')",
            "pathlib.Path('/etc/shadow').read_text()",
            "pathlib.Path('/tmp/escaped').write_text('x')",
            f"os.symlink({str(secret)!r}, 'link') or pathlib.Path('link').read_text()",
        ],
    )
    assert tried[:3] == ["''", "1", "True"]
    assert tried[3:] == ["PermissionError"] * 6


def test_a_model_has_no_network_and_starts_and_touches_no_process(tmp_path: Path) -> None:
    tried = answers(
        tmp_path,
        [
            "socket.socket()",
            "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
            "socket.socket(socket.AF_UNIX)",
            "os.fork()",
            "os.setsid()",
            "subprocess.run(['true'])",
            "os.kill(os.getppid(), 0)",
            "pathlib.Path(f'/proc/{os.getppid()}/environ').read_bytes()",
            "os.setuid(1)",
            "ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)",
            "os.system('true') != 0",
            "len(socket.socketpair())",
            "[t := threading.Thread(target=print), t.start(), t.join()][1:]",
        ],
    )
    assert tried[:9] == ["PermissionError"] * 9
    assert tried[9:] == ["-1", "True", "2", "[None, None]"]


def test_a_model_that_is_granted_the_network_has_it_and_nothing_else(tmp_path: Path) -> None:
    tried = answers(tmp_path, ["socket.socket().close()", "os.fork()"], "network: true")
    assert tried == ["None", "PermissionError"]


def test_a_models_memory_and_files_are_bounded(tmp_path: Path) -> None:
    tried = answers(
        tmp_path,
        ["len(bytearray(300 * 2**20))", "len(bytearray(20 * 2**20))", "[os.open('/dev/null', 0) for _ in range(400)]",
         "resource.getrlimit(resource.RLIMIT_CORE)", f"os.nice(0) >= {os.nice(0)} + 5"],
        "memory_mb: 200",
    )  # fmt: skip
    assert tried == ["MemoryError", str(20 * 2**20), "OSError", "(0, 0)", "True"]


def test_none_of_the_platforms_secrets_are_in_a_models_environment(tmp_path: Path) -> None:
    given = {"HAAT_MASTER_KEY": "s", "PGPASSWORD": "s", "AWS_SECRET_ACCESS_KEY": "s", "PATH": "/bin", "LANG": "C"}
    manifest = Manifest("a", "python", "a:b", environment={"LEVEL": "3"})
    made = environment_of(manifest, tmp_path, given, networks=["10.0.0.0/8"])
    assert "s" not in made.values()
    assert (made["PATH"], made["LEVEL"], made["HOME"], made["TMPDIR"]) == ("/bin", "3", str(tmp_path), str(tmp_path))
    assert "MODEL_ALLOWED_NETWORKS" not in made
    granted = environment_of(Manifest("a", "http", "x", network=True), tmp_path, given, networks=["10.0.0.0/8"])
    assert granted["MODEL_ALLOWED_NETWORKS"] == "10.0.0.0/8"


def test_what_a_model_prints_breaks_nothing(tmp_path: Path) -> None:
    assert answers(tmp_path, ["print('noise')", "os.write(1, b'noise')"]) == ["None", "5"]


@pytest.mark.parametrize("runtime", ["python", "onnx", "command"])
def test_the_templates_run_confined(tmp_path: Path, runtime: str) -> None:
    assert len(answer(from_template(tmp_path, runtime))) == 1


def test_a_command_has_no_network_and_no_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    script = (
        "#!/bin/sh\ncat > /dev/null\n"
        f"cat {tmp_path}/secret 2>/dev/null && echo read || echo kept\n"
        f"{sys.executable} -c 'import socket; socket.socket()' 2>/dev/null && echo online || echo offline\n"
    )
    said = "name: tries\nruntime: command\nentry: ./try.sh\nsample: {input: [{text: a}]}\n"
    folder = folder_with(tmp_path / "model", {"try.sh": script, "haat-model.yaml": said})
    (folder / "try.sh").chmod(0o755)
    assert answer(folder) == [{"text": "kept\noffline"}]


CONFINE = """
import json, socket, sys
from pathlib import Path
from haat.kernel.errors import EngineMissing
from haat.models.manifest import Manifest
from haat.models.runtimes import confinement
from haat.models.runtimes.sandbox import NotPossible

def not_possible(*_, **__):
    raise NotPossible(38, "no such rules here")

confinement.hide_files = confinement.refuse_calls = not_possible
try:
    weak = confinement.confine(Manifest("a", sys.argv[1], "a:b"), Path(sys.argv[2]), Path(sys.argv[2]) / "work")
except EngineMissing as error:
    weak = [error.detail]
try:
    socket.socket()
    weak.append("online")
except PermissionError as error:
    weak.append(str(error))
print(json.dumps(weak))
"""


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("python", ["can read what its account", "Only Python's own sockets", "`network: true`"]),
        ("command", ["can't be kept from the network here", "online"]),
    ],
)
def test_where_the_kernel_has_no_rules_it_is_said_what_does_not_hold(
    tmp_path: Path, runtime: str, said: list[str]
) -> None:
    done = subprocess.run([sys.executable, "-c", CONFINE, runtime, str(tmp_path)], capture_output=True, check=True)
    sentences = json.loads(done.stdout)
    assert [words in sentence for words, sentence in zip(said, sentences, strict=True)] == [True] * len(said)


def test_an_environment_is_made_once_and_sees_its_own_distributions_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    _write_wheel(wheels, "sumy", "0.0.1")  # the platform has another one
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    python = environment_python(["sumy==0.0.1"], tmp_path / "environments")
    made = Path(python).stat().st_mtime_ns
    assert environment_python(["sumy==0.0.1"], tmp_path / "environments") == python
    assert Path(python).stat().st_mtime_ns == made
    tried = answers(tmp_path, ["__import__('sumy').VERSION", "__import__('msgspec').__name__"], python=python)
    assert tried == ["'0.0.1'", "'msgspec'"]
    assert environment_python([], tmp_path) == ""


def test_requirements_that_can_not_be_installed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EngineMissing, match=r"can't be installed: .*no-such-thing"):
        environment_python(["no-such-thing==1.0"], tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def _write_wheel(folder: Path, name: str, version: str) -> None:
    import zipfile

    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
