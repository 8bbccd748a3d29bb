"""A flag as it is written down: in a request, in the store, in the events of its history."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from haat.flags.model import ATTRIBUTES, KEY, SUBJECTS, Condition, Flag, FlagKind, Rule, fits
from haat.kernel.bucketing import BUCKETS
from haat.kernel.errors import ValidationFailed
from haat.kernel.text import is_storable
from haat.language.messages import _

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
_Value = Annotated[str, Field(min_length=1, max_length=200)]
_Attribute = Literal["targetingKey", "organisation", "application", "role", "plan", "language", "user"]
_Subject = Literal["targetingKey", "organisation", "application", "user"]
assert set(ATTRIBUTES) == set(_Attribute.__args__) and set(SUBJECTS) == set(_Subject.__args__)  # type: ignore[attr-defined]


class _Draft(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if not is_storable(value):
            raise ValueError("holds characters or numbers that can't be stored")
        return value


class ConditionDraft(_Draft):
    """``{"attribute": "plan", "in": ["pro"]}``, or ``not_in``; exactly one of the two."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    attribute: _Attribute
    values: Annotated[list[_Value] | None, Field(alias="in", min_length=1, max_length=1000)] = None
    not_in: Annotated[list[_Value] | None, Field(min_length=1, max_length=1000)] = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ConditionDraft:
        if (self.values is None) == (self.not_in is None):
            raise ValueError("give `in` or `not_in`")
        return self

    def condition(self) -> Condition:
        if self.values is not None:
            return Condition(self.attribute, frozenset(self.values))
        return Condition(self.attribute, frozenset(self.not_in or ()), negated=True)


class RuleDraft(_Draft):
    """``percent`` has two decimals at most: a bucket is a hundredth of a percent. Without it the rule is for all."""

    variant: _Name
    when: Annotated[list[ConditionDraft], Field(max_length=10)] = []
    percent: Annotated[float | None, Field(ge=0, le=100)] = None
    by: _Subject = "targetingKey"

    @field_validator("percent")
    @classmethod
    def _whole_buckets(cls, percent: float | None) -> float | None:
        if percent is not None and abs(percent * 100 - round(percent * 100)) > 1e-6:
            raise ValueError("has two decimals at most")
        return percent

    def rule(self) -> Rule:
        buckets = None if self.percent is None else round(self.percent * BUCKETS / 100)
        return Rule(self.variant, tuple(one.condition() for one in self.when), buckets, self.by)


class FlagDraft(_Draft):
    """Everything of a flag that the operator writes. ``off`` is what a flag serves that is switched off."""

    kind: FlagKind = "boolean"
    variants: Annotated[dict[_Name, Any], Field(min_length=1, max_length=50)] = {"on": True, "off": False}
    default: _Name = "off"
    off: _Name = "off"
    enabled: bool = True
    exposed: bool = False
    description: Annotated[str, Field(max_length=500)] = ""
    rules: Annotated[list[RuleDraft], Field(max_length=50)] = []

    @model_validator(mode="after")
    def _holds_together(self) -> FlagDraft:
        for name, value in self.variants.items():
            if not fits(self.kind, value):
                raise ValueError(f"the value of the variant {name} is no {self.kind}")
        named = {"default": self.default, "off": self.off}
        named |= {f"rules.{place}.variant": rule.variant for place, rule in enumerate(self.rules)}
        for place, name in named.items():
            if name not in self.variants:
                raise ValueError(f"{place} names {name}, which is none of the variants")
        return self

    def flag(self, key: str, **known: Any) -> Flag:
        return Flag(
            key=key,
            kind=self.kind,
            variants=self.variants,
            default=self.default,
            off=self.off,
            enabled=self.enabled,
            exposed=self.exposed,
            description=self.description,
            rules=tuple(rule.rule() for rule in self.rules),
            **known,
        )

    def plain(self) -> dict[str, Any]:
        """Return the draft as JSON has it, without what is as usual."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def parse(cls, value: Any) -> FlagDraft:
        """Return a draft; raise ValidationFailed, which names the fields."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ValidationFailed(
                errors=[
                    {"field": ".".join(map(str, one["loc"])) or "flag", "message": one["msg"]} for one in error.errors()
                ]
            ) from error


def written(flag: Flag) -> FlagDraft:
    """Return the draft that a flag was made of."""
    rules = []
    for rule in flag.rules:
        percent = None if rule.buckets is None else rule.buckets * 100 / BUCKETS
        when = [
            {"attribute": one.attribute, "not_in" if one.negated else "in": sorted(one.values)} for one in rule.when
        ]
        rules.append({"variant": rule.variant, "when": when, "percent": percent, "by": rule.by})
    return FlagDraft.parse(
        {
            "kind": flag.kind,
            "variants": dict(flag.variants),
            "default": flag.default,
            "off": flag.off,
            "enabled": flag.enabled,
            "exposed": flag.exposed,
            "description": flag.description,
            "rules": rules,
        }
    )


def check_key(key: str) -> str:
    """Return a flag's key; raise ValidationFailed for what can't be one."""
    if not KEY.fullmatch(key):
        message = _("Use 1 to 80 small letters and digits, with dots, hyphens and underscores between them.")
        raise ValidationFailed(errors=[{"field": "key", "message": message}])
    return key
