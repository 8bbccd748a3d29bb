"""Our flags behind OpenFeature's API: the provider that evaluates them in this process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails, FlagType, Reason
from openfeature.provider import AbstractProvider, Metadata

from haat.flags.following import FollowedFlags
from haat.flags.model import Evaluation, Flag, evaluate

Object = Sequence[Any] | Mapping[str, Any]


class ResolvingProvider(AbstractProvider):
    """A provider whose subclasses find an evaluation: `known` without waiting, `found` with."""

    name = ""

    @abstractmethod
    def known(self, key: str, context: Mapping[str, Any]) -> Evaluation | None:
        """Return an evaluation that needs no waiting, None when there is none."""

    @abstractmethod
    async def found(self, key: str, context: Mapping[str, Any]) -> Evaluation:
        """Return an evaluation, waiting for it where that must be."""

    def get_metadata(self) -> Metadata:
        return Metadata(self.name)

    def _now(self, type: FlagType, key: str, default: Any, asked: EvaluationContext | None) -> Any:
        evaluation = self.known(key, plain_context(asked))
        if evaluation is None:
            message = "The flags are not at hand yet: ask with the methods that are awaited."
            return FlagResolutionDetails(
                default, error_code=ErrorCode.PROVIDER_NOT_READY, error_message=message, reason=Reason.ERROR
            )
        return resolution(evaluation, type, default)

    async def _awaited(self, type: FlagType, key: str, default: Any, asked: EvaluationContext | None) -> Any:
        return resolution(await self.found(key, plain_context(asked)), type, default)

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return self._now(FlagType.BOOLEAN, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return self._now(FlagType.STRING, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return self._now(FlagType.INTEGER, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        return self._now(FlagType.FLOAT, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]

    def resolve_object_details(
        self, flag_key: str, default_value: Object, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Object]:
        return self._now(FlagType.OBJECT, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]

    async def resolve_boolean_details_async(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return await self._awaited(FlagType.BOOLEAN, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]

    async def resolve_string_details_async(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return await self._awaited(FlagType.STRING, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]

    async def resolve_integer_details_async(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return await self._awaited(FlagType.INTEGER, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]

    async def resolve_float_details_async(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        return await self._awaited(FlagType.FLOAT, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]

    async def resolve_object_details_async(
        self, flag_key: str, default_value: Object, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Object]:
        return await self._awaited(FlagType.OBJECT, flag_key, default_value, evaluation_context)  # type: ignore[no-any-return]


class OwnFlags(ResolvingProvider):
    """The platform's own flags, evaluated here."""

    name = "haat"

    def __init__(self, followed: FollowedFlags) -> None:
        super().__init__()
        self._followed = followed
        followed.on_change = self._changed

    def known(self, key: str, context: Mapping[str, Any]) -> Evaluation | None:
        held: Mapping[str, Flag] | None = self._followed.held
        return None if held is None else evaluate(held.get(key), key, context)

    async def found(self, key: str, context: Mapping[str, Any]) -> Evaluation:
        return evaluate((await self._followed.present()).get(key), key, context)

    def _changed(self, keys: list[str]) -> None:
        self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=keys))


def plain_context(asked: EvaluationContext | None) -> dict[str, Any]:
    """Return a context as one mapping, the way OFREP has it."""
    if asked is None:
        return {}
    context = dict(asked.attributes)
    if asked.targeting_key is not None:
        context["targetingKey"] = asked.targeting_key
    return context


def resolution(evaluation: Evaluation, type: FlagType, default: Any) -> FlagResolutionDetails[Any]:
    """Return what OpenFeature's API is told; with an error, or a value of another type, the default."""
    if evaluation.error is not None:
        error = ErrorCode(evaluation.error)
        return FlagResolutionDetails(default, error, evaluation.message, Reason.ERROR)
    value = typed(type, evaluation.value)
    if value is None:
        message = f"The value of {evaluation.key} is no {type.value.lower()}."
        return FlagResolutionDetails(default, ErrorCode.TYPE_MISMATCH, message, Reason.ERROR)
    metadata = {"version": evaluation.version} if evaluation.version else {}
    reason = Reason(evaluation.reason)
    return FlagResolutionDetails(value, None, None, reason, evaluation.variant or None, metadata)


def typed(type: FlagType, value: Any) -> Any:
    """Return a value as a type of OpenFeature's, None when it is of another. 3 is a float, and 3.0 an integer."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match type:
        case FlagType.BOOLEAN:
            return value if isinstance(value, bool) else None
        case FlagType.STRING:
            return value if isinstance(value, str) else None
        case FlagType.INTEGER:
            return int(value) if number and value == int(value) else None
        case FlagType.FLOAT:
            return float(value) if number else None
        case FlagType.OBJECT:
            return value if isinstance(value, Mapping | list) else None
