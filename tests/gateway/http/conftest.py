"""Fixtures of the tests of HTTP: a gateway in memory, made once for a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.http.wire import Wire
from haat.infra.keyring import Keyring


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with Wire(tmp_path_factory.mktemp("wire"), Keyring(bytes(range(32)))) as wire:
        yield wire
