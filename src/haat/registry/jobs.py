"""What the registry does when a version has changed: it repeats what a killed process may have left undone."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM

if TYPE_CHECKING:
    from haat.app import Platform


async def place(platform: Platform, event: DomainEvent) -> None:
    """Bring the models process in step with what the database says now."""
    await platform.registry.place_all(PLATFORM, UUID(event.stream.removeprefix("model/")))


HANDLERS = [
    EventHandler(
        "registry.place",
        frozenset({"model.deployed", "model.published", "model.refused", "model.retired"}),
        place,
    )
]
