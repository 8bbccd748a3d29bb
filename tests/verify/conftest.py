"""One platform for all the long tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running import RunningPlatform


@pytest.fixture(scope="session")
def platform_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    platform = RunningPlatform(tmp_path_factory.mktemp("platform"))
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()
