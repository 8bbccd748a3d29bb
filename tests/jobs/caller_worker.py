"""A worker in a process of its own, with the environment's settings, for tests that kill it."""

from __future__ import annotations

import asyncio

from haat import worker
from haat.settings import load_settings

if __name__ == "__main__":
    asyncio.run(worker.run(load_settings(), asyncio.Event()))
