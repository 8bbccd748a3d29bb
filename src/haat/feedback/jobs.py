"""Feedback is kept for a time: every night what is older is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.infra.jobs import RunningJob, Schedule, Task

if TYPE_CHECKING:
    from haat.app import Platform


async def forget_old(platform: Platform, _: RunningJob) -> None:
    await platform.feedback.forget_old()


FORGET = Task("feedback.forget", forget_old)
TASKS = (FORGET,)
SCHEDULES = (Schedule(FORGET.name, "43 21 * * *"),)
