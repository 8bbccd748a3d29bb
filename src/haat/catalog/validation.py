"""What a version may say of the batches it takes: see `haat.gateway.market.policy.ValidationPolicy`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Limit = Annotated[int, Field(ge=0, le=10_000_000)]


class BoundsDraft(BaseModel):
    """Limits of one plan that take the place of the version's; 0 leaves the version's."""

    model_config = ConfigDict(extra="forbid")

    items: _Limit = 0
    total: _Limit = 0
    most: _Limit = 0


class ValidationDraft(BaseModel):
    """Limits are 0 for none; ``repeats`` is the longest run of one character, ``plans`` go by their codes."""

    model_config = ConfigDict(extra="forbid")

    items: _Limit = 0
    total: _Limit = 0
    least: _Limit = 0
    most: _Limit = 0
    repeats: _Limit = 0
    empty: bool = False
    duplicates: Literal["allow", "refuse"] = "allow"
    language: bool = False
    profanity: Literal["allow", "flag", "refuse"] = "allow"
    plans: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9](-?[a-z0-9]){0,39}$")], BoundsDraft], Field(max_length=32)
    ] = {}

    @model_validator(mode="after")
    def _can_be_met(self) -> ValidationDraft:
        for most in (self.most, *(plan.most for plan in self.plans.values())):
            if most and self.least > most:
                raise ValueError("`least` is more than `most`: no text would be taken")
        return self
