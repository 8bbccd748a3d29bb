"""What an organisation may demand for the calls of one of its applications.

The gateway reads the same as `haat.gateway.market.policy.ApplicationPolicy`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from haat.kernel.text import is_storable


class _Draft(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if not is_storable(value):
            raise ValueError("holds characters or numbers that can't be stored")
        return value


_Origin = Annotated[str, Field(pattern=r"^(\*|https?://[a-z0-9.:\[\]-]+)$", max_length=255)]
_Region = Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]


class CorsDraft(_Draft):
    """Which web pages may call with this application's keys. An origin is ``https://shop.example`` or ``*``.

    ``max_age`` is how many seconds a browser may remember the answer to its preflight.
    """

    origins: Annotated[list[_Origin], Field(max_length=100)]
    credentials: bool = False
    max_age: Annotated[int, Field(ge=0, le=86_400)] = 3600

    @model_validator(mode="after")
    def _credentials_name_their_origins(self) -> CorsDraft:
        if self.credentials and "*" in self.origins:
            raise ValueError("allow credentials only to origins that you name, not to `*`")
        return self


class DataPolicyDraft(_Draft):
    """What is demanded of whoever executes the calls.

    ``regions`` are listings' regions, empty for any; a country covers its parts (``IN`` covers ``IN-KA``).
    ``retains_inputs`` false refuses services that keep what they are sent.
    """

    regions: Annotated[list[_Region], Field(max_length=50)] = []
    retains_inputs: bool = True


class ApplicationPolicyDraft(_Draft):
    """Everything an application says to the gateway; what is left out is as usual.

    ``fallback``: another provider may answer when the subscribed one can't, where the plan allows it.
    """

    cors: CorsDraft | None = None
    data: DataPolicyDraft | None = None
    fallback: bool = True
