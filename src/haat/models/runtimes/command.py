"""The runtime ``command``: any program, text in and text out.

``entry`` is its command line; no shell reads it. A program in the model's folder is named by its path there. In an
argument ``{source}``, ``{target}`` or ``{language}`` becomes that language of the call, ``{folder}`` the folder. With
``settings: {mode: lines}`` one process answers all texts of a batch in the same languages, a line each; the usual
``mode: text`` starts one for each text. ``settings: {output: NAME}`` names the output's member, ``text`` if not said.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from haat.kernel.errors import EngineFailed
from haat.models.hosted import Output
from haat.models.manifest import Manifest
from haat.models.runtimes.port import Input, Runner, Runtime
from haat.providers.programs import run_program

MODES = ("text", "lines")
_PLACES = ("source", "target", "language", "folder")
_BREAKS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
_OUTPUT = re.compile(r"[a-z_][a-z0-9_]{0,39}")


class CommandRuntime(Runtime):
    """A program that is started for each text, or for each batch."""

    name = "command"

    def check(self, manifest: Manifest, folder: Path) -> list[str]:
        found = [
            f"settings.{name}: is not a setting of a command"
            for name in manifest.settings
            if name not in ("mode", "output")
        ]
        if manifest.settings.get("mode", "text") not in MODES:
            found.append(f"settings.mode: must be one of {', '.join(MODES)}")
        output = manifest.settings.get("output", "text")
        if not isinstance(output, str) or not _OUTPUT.fullmatch(output):
            found.append("settings.output: must be a name of small letters")
        if manifest.kind != "text":
            found.append("kind: must be text, a command knows nothing else")
        try:
            arguments = shlex.split(manifest.entry)
        except ValueError as error:
            return [*found, f"entry: is not a command line ({error})"]
        if not arguments:
            return [*found, "entry: must be a command line"]
        unknown = {place for argument in arguments for place in re.findall(r"\{(\w+)\}", argument)} - set(_PLACES)
        found += [f"entry: knows no {{{place}}}; there are {', '.join(_PLACES)}" for place in sorted(unknown)]
        program = folder / arguments[0]
        if "/" in arguments[0] and not Path(arguments[0]).is_absolute() and not program.is_file():
            found.append(f"entry: there is no {arguments[0]} in the folder")
        return found

    def missing(self, manifest: Manifest) -> str | None:
        program = shlex.split(manifest.entry)[0]
        if "/" in program and not Path(program).is_absolute():
            return None  # it is in the model's folder
        return None if shutil.which(program) else f"The program {program} is not installed on this machine."

    def open(self, manifest: Manifest, folder: Path) -> Runner:
        return CommandRunner(manifest, folder.resolve())


class CommandRunner(Runner):
    """Starts the program. What it writes to standard error is not kept."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        program, *self._arguments = shlex.split(manifest.entry)
        own = folder / program
        if "/" in program and own.is_file():
            if not os.access(own, os.X_OK):
                own.chmod(0o755)  # a bundle keeps no modes
            program = str(own)
        self._program, self._folder = program, folder
        self._seconds = manifest.timeout_seconds
        self._environment = dict(manifest.environment)
        self._by_lines = manifest.settings.get("mode", "text") == "lines"
        self._output = str(manifest.settings.get("output", "text"))

    def predict(self, inputs: Sequence[Input]) -> Sequence[Output]:
        if not self._by_lines:
            return [{self._output: self._run(one, one.text)[0]} for one in inputs]
        texts = [""] * len(inputs)
        groups: dict[tuple[str, ...], list[int]] = {}
        for index, one in enumerate(inputs):
            groups.setdefault(tuple(self._command(one)), []).append(index)
        for members in groups.values():
            asked = "\n".join(_BREAKS.sub(" ", inputs[index].text) for index in members) + "\n"
            [answer] = self._run(inputs[members[0]], asked)
            lines = answer.split("\n")
            if len(lines) != len(members):
                raise EngineFailed(f"The program gave {len(lines)} lines for {len(members)}; the call is not billed.")
            for index, line in zip(members, lines, strict=True):
                texts[index] = line
        return [{self._output: text} for text in texts]

    def _run(self, one: Input, text: str) -> list[str]:
        answer = run_program(self._command(one), text.encode(), seconds=self._seconds, environment=self._environment)
        try:
            return [answer.decode().removesuffix("\n")]
        except UnicodeDecodeError as error:
            raise EngineFailed("The program's answer is not UTF-8; the call is not billed.") from error

    def _command(self, one: Input) -> list[str]:
        values = {"folder": str(self._folder)}
        values |= {name: str(one.config.get(name, "")) for name in ("source", "target", "language")}
        return [
            self._program,
            *(re.sub(r"\{(\w+)\}", lambda place: values[place[1]], argument) for argument in self._arguments),
        ]
