"""One platform for all the long tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import RunningPlatform


@pytest.fixture(scope="session")
def platform_process(short_tmp: Path) -> Iterator[RunningPlatform]:
    data_dir = short_tmp / "platform"
    data_dir.mkdir()
    platform = RunningPlatform(data_dir)
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()
