"""What callers say of answers at the gateway's door, as the control process takes it."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from haat.control.context import Body, IntroducedOf, PlatformOf, checked, json_of
from haat.feedback.model import MOST_COMMENT, MOST_ITEMS, MOST_TEXT, Accepted, Opinion, Thumbs
from haat.kernel.errors import ValidationFailed

router = APIRouter()

_Text = Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]


class OpinionBody(Body):
    """What is said of one answer; at least one of ``thumbs``, ``rating``, ``corrected``, ``comment``."""

    request_id: UUID
    thumbs: Thumbs | None = None
    rating: Annotated[int | None, Field(ge=1, le=5, strict=True)] = None
    corrected: _Text | None = None
    answered: _Text | None = None
    comment: Annotated[str | None, Field(min_length=1, max_length=MOST_COMMENT)] = None

    def opinion(self) -> Opinion:
        return Opinion(**self.model_dump())


class FeedbackBody(Body):
    """One opinion, or ``items`` of up to 100."""

    request_id: UUID | None = None
    thumbs: Thumbs | None = None
    rating: Annotated[int | None, Field(ge=1, le=5, strict=True)] = None
    corrected: _Text | None = None
    answered: _Text | None = None
    comment: Annotated[str | None, Field(min_length=1, max_length=MOST_COMMENT)] = None
    items: Annotated[list[OpinionBody] | None, Field(min_length=1, max_length=MOST_ITEMS)] = None

    def opinions(self) -> tuple[list[Opinion], str]:
        """Return the opinions, and how the fields of each are named; raise ValidationFailed."""
        alone = self.model_dump(exclude={"items"}, exclude_none=True)
        if self.items is not None:
            if alone:
                message = "stand beside no other member: give one opinion, or `items`"
                raise ValidationFailed(errors=[{"field": "items", "message": message}])
            return [one.opinion() for one in self.items], "items.{}."
        if self.request_id is None:
            raise ValidationFailed(errors=[{"field": "request_id", "message": "must be given, or `items`"}])
        return [Opinion(**alone)], ""


class AcceptedView(BaseModel):
    """``kept`` names what is stored: an application's data policy can keep texts from it."""

    request_id: UUID
    kept: list[str]
    replaced: bool


class AcceptedPage(BaseModel):
    items: list[AcceptedView]


@router.post("/v1/feedback", status_code=201)
async def give(request: Request, who: IntroducedOf, platform: PlatformOf) -> AcceptedPage:
    """Say what the answers to an application's own calls were worth."""
    opinions, place = checked(FeedbackBody, await json_of(request)).opinions()
    holder = await platform.identity.holder(UUID(who.org), UUID(who.application))
    accepted = await platform.feedback.give(holder, opinions, place)
    return AcceptedPage(items=[_accepted(one) for one in accepted])


def _accepted(one: Accepted) -> AcceptedView:
    return AcceptedView(request_id=one.request_id, kept=list(one.kept), replaced=one.replaced)
