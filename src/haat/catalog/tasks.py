"""How a service that speaks one of ULCA's tasks is tried."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from haat.infra.ulca import NAMES, Unfit, ask, read_answer, task_at
from haat.kernel.errors import HaatError


class TaskTrial:
    """One try of such a service: a task of our schema, asked in ULCA's words at its own address."""

    path = ""

    def __init__(self, endpoint: str, sample: Any) -> None:
        """Raise ValueError, with a sentence, for an address or a task that can't be asked so."""
        task = task_at(endpoint)
        if task is None:
            raise ValueError(f"the address ends with none of the tasks {', '.join(NAMES)}")
        self._task = task
        try:
            self._asked = ask(task, json.dumps(sample, ensure_ascii=False).encode())
        except HaatError as error:
            errors = error.extensions.get("errors")
            raise ValueError(f"{errors[0]['field']}: {errors[0]['message']}" if errors else error.detail) from error

    @property
    def body(self) -> bytes:
        return self._asked.body

    @property
    def headers(self) -> dict[str, str]:
        """What goes with that body."""
        return {"Content-Type": "application/json"}

    def read(self, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer in the task schema; raise ValueError for one that is none."""
        try:
            return {"output": read_answer(self._task, body, self._asked.items)}
        except Unfit as error:
            raise ValueError(f"the answer can't be used: {error}") from error
