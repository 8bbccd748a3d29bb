"""The worker process as a whole: from a change to the mail that follows it, and a stop within its time."""

from __future__ import annotations

import asyncio
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from haat import worker
from haat.app import open_platform
from haat.settings import Settings
from jobs.job_rig import until


@pytest.fixture
def settings(cluster: Any, database: Any) -> Settings:
    return Settings(data_dir=cluster.settings.data_dir, database_url=database.owner_dsn, smtp_port=0)


async def test_a_registration_is_followed_by_its_mails(settings: Settings) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(settings, stop))
    async with open_platform(settings, name="test") as platform:
        for kind, email in (("operator", "operator@market.example"), ("provider", "owner@bhasha.example")):
            actor = await platform.identity.create_organisation(
                email=email, password="correct horse battery", name="A Person", organisation=kind, kind=kind
            )
        partner = await platform.partners.register(
            actor,
            slug="bhasha",
            company_name="Bhāṣā Labs",
            email="hello@bhasha.example",
            contact_person="A Person",
            business_type="company",
        )
    folder = Path(settings.data_dir) / "mail"

    async def mails() -> dict[str, str]:
        found = [message_from_bytes(file.read_bytes(), policy=default) for file in folder.glob("*.eml")]
        return {str(mail["To"]): str(mail["Subject"]) for mail in found} if len(found) >= 2 else {}

    assert await until(mails) == {
        "operator@market.example": f"{partner.company_name} wants to offer services",
        "hello@bhasha.example": "We have your registration",
    }
    stop.set()
    async with asyncio.timeout(5):
        await running
