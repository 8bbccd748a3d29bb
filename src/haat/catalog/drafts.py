"""What providers hand in: services, versions, prices, and what they say to the gateway."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from haat.catalog.model import SPOKEN_DIALECTS, TASK_DIALECTS, AudioFormat, Category, Dialect, Unit, Visibility
from haat.catalog.pricing import Amount, ComponentDraft, no_floats
from haat.catalog.quality import QualityDraft, check_quality
from haat.catalog.tensors import COUNTED_UNITS, TensorMapDraft
from haat.catalog.validation import ValidationDraft
from haat.infra.inference.upstream import is_asked_over_grpc
from haat.infra.ulca import NAMES as TASK_NAMES
from haat.infra.ulca import task_at
from haat.kernel import reshaping
from haat.kernel.errors import ValidationFailed
from haat.kernel.text import is_storable

_OUR_HEADERS = frozenset(  # those that frame a message or steer its connection (RFC 9110, 7.6.1)
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
    }
)

_NO_SELECTORS = frozenset(  # they say who asks, for which part, or how the answer is to be kept
    {
        "authorization",
        "cache-control",
        "cookie",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "pragma",
        "range",
        "traceparent",
        "tracestate",
        "x-api-key",
    }
)

_Slug = Annotated[str, Field(pattern=r"^[a-z0-9](-?[a-z0-9]){0,39}$")]
_Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z][a-z]{3})?$")]
_VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
_LONGEST_VALUE = 4096
_Endpoint = Annotated[str, Field(pattern=r"^(https?|grpcs?)://[^\s?#@]+$", max_length=500)]
_LanguagePair = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z][a-z]{3})?>[a-z]{2,3}(-[A-Z][a-z]{3})?$")]


def misaddressed(address: str, dialect: Dialect, decoupled: bool, websocket: bool = False) -> str:
    """Return what is wrong with an endpoint's address for what a version says of itself; empty when nothing is."""
    if is_asked_over_grpc(address):
        if dialect != "inference" or websocket:
            return "only models of the dialect `inference` are asked over gRPC, and without WebSocket"
    elif decoupled:
        return "a model that answers in several parts (`decoupled`) is asked over gRPC: grpcs://host:port"
    return ""


class _Draft(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if not is_storable(value):
            raise ValueError("holds characters or numbers that can't be stored")
        return value

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Any:
        """Return the draft, or raise ValidationFailed naming each field that needs correcting."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise ValidationFailed(errors=field_errors(error)) from error


class SampleCall(_Draft):
    """A real request in the service's own protocol: the acceptance test and the try-it example."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: Annotated[str, Field(pattern=r"^/[^\s#]*$", max_length=500)] = "/invoke"
    body: Any = None
    expect_status: Annotated[int, Field(ge=200, le=299)] = 200


class CachePolicyDraft(_Draft):
    """The service is deterministic: an answer may be given again, to any subscriber, for ``ttl_seconds``.

    ``items``: the inputs of a task call are independent of each other. ``headers`` select the answer beside
    Accept, Accept-Language and Content-Type; no others reach the provider.
    """

    ttl_seconds: Annotated[int, Field(ge=1, le=30 * 86_400)] = 3600
    items: bool = False
    headers: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]], Field(max_length=16)] = []

    @field_validator("headers")
    @classmethod
    def _can_select(cls, headers: list[str]) -> list[str]:
        for header in headers:
            if header.lower() in _OUR_HEADERS | _NO_SELECTORS or header.lower().startswith(("proxy-", "x-haat-")):
                raise ValueError(f"{header} does not select an answer")
        return headers


class ServicePolicyDraft(_Draft):
    """How the gateway may treat a service's calls; see `haat.gateway.market.policy.ServicePolicy`.

    ``repeatable`` is a promise: executing a call twice harms nobody, so it may be tried again. ``cache``:
    its answers are kept, because they depend on nothing but the question. ``aliases``: names under which
    programs know it as a model. ``visitors``: people without an account may try it at the operator's cost.
    """

    repeatable: bool = False
    capability: Annotated[str, Field(pattern=r"^([a-z0-9](-?[a-z0-9]){0,39})?$")] = ""
    aliases: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$")]],
        Field(max_length=16),
    ] = []
    cache: CachePolicyDraft | None = None
    visitors: bool = True


class TransformDraft(_Draft):
    """One change to requests or answers; see `haat.kernel.reshaping` for the paths.

    ``set_header`` and ``remove_header`` name the header in ``path``; ``rename`` has the new name in ``to``.
    """

    do: Literal["set_header", "remove_header", "set", "remove", "rename", "move"]
    path: Annotated[str, Field(max_length=200)]
    to: Annotated[str, Field(max_length=200)] = ""
    value: Any = None

    @model_validator(mode="after")
    def _can_be_made(self) -> TransformDraft:
        reshaping.check(self.do, self.path, self.to, self.value)
        if len(json.dumps(self.value)) > _LONGEST_VALUE:
            raise ValueError(f"a `value` has at most {_LONGEST_VALUE} bytes")
        return self


class VersionPolicyDraft(_Draft):
    """How the gateway reaches a version; ``endpoints`` serve the same as its first endpoint.

    With ``websocket`` they also speak WebSocket, and callers may open sessions.
    ``request`` and ``answer`` are changed on their way, in this order. A version that ``serves`` another
    one only adapts its own shape to that one's, whose endpoints execute its calls. ``model`` is what the
    provider calls its model: front doors write it in place of the name that the caller knows. ``tensors`` are
    those in which endpoints of the dialect ``inference`` are asked. ``audio_formats``: it gives its sound in
    these when ``config.format`` names one.
    """

    endpoints: Annotated[list[_Endpoint], Field(max_length=15)] = []
    websocket: bool = False
    serves: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,31})?$")] = ""
    model: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)] = ""
    request: Annotated[list[TransformDraft], Field(max_length=reshaping.MAX_CHANGES)] = []
    answer: Annotated[list[TransformDraft], Field(max_length=reshaping.MAX_CHANGES)] = []
    tensors: TensorMapDraft | None = None
    audio_formats: Annotated[list[AudioFormat], Field(max_length=6)] = []
    validation: ValidationDraft | None = None
    """What a task version's batches are held against, before they are changed."""
    quality: Annotated[list[QualityDraft], Field(max_length=500)] = []
    """What the provider has measured, a pair each."""

    @model_validator(mode="after")
    def _adapters_have_no_endpoints(self) -> VersionPolicyDraft:
        if self.serves and (self.endpoints or self.websocket or self.tensors):
            raise ValueError(
                "an adapter is executed by the version it serves: it has no endpoints, sessions or tensors"
            )
        return self

    @field_validator("endpoints")
    @classmethod
    def _each_once(cls, endpoints: list[str]) -> list[str]:
        endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        if len(set(endpoints)) != len(endpoints):
            raise ValueError("name the same endpoint twice")
        return endpoints


class VersionDraft(_Draft):
    """One version of a service: where it is, what it speaks and how it is tried."""

    version: _VersionName = "1"
    endpoint: Annotated[str, Field(pattern=r"^((https?|grpcs?)://[^\s?#@]+)?$", max_length=500)] = ""
    """Empty for an adapter."""
    dialect: Dialect = "http"
    health_path: Annotated[str, Field(pattern=r"^(/[^\s#]*)?$", max_length=200)] = ""
    languages: list[_Language] = []
    language_pairs: list[_LanguagePair] = []
    sample: SampleCall
    openapi: dict[str, Any] | None = None
    timeout_ms: Annotated[int, Field(ge=10, le=600_000)] = 30_000
    warm_up_seconds: Annotated[int, Field(ge=1, le=600)] = 5
    max_body_bytes: Annotated[int, Field(ge=1, le=1024 * 1024 * 1024)] = 1024 * 1024
    max_units: Annotated[Decimal, Field(gt=0, max_digits=24, decimal_places=6)] | None = None
    policy: VersionPolicyDraft = VersionPolicyDraft()

    @model_validator(mode="after")
    def _is_somewhere(self) -> VersionDraft:
        if bool(self.endpoint) == bool(self.policy.serves):
            raise ValueError("name an `endpoint`, or in `policy.serves` the version that this one adapts")
        if self.policy.serves == self.version:
            raise ValueError("a version can't adapt itself")
        return self

    @model_validator(mode="after")
    def _endpoints_differ(self) -> VersionDraft:
        if self.endpoint.rstrip("/") in self.policy.endpoints:
            raise ValueError("`policy.endpoints` are further ones: leave the first one out")
        return self

    @model_validator(mode="after")
    def _sample_fits(self) -> VersionDraft:
        inputs = self.sample.body.get("input") if isinstance(self.sample.body, dict) else None
        if self.dialect in TASK_DIALECTS and not (isinstance(inputs, list) and inputs):
            raise ValueError("a task service's sample body is an object with a list `input` and `config`")
        if self.policy.validation is not None and self.dialect not in TASK_DIALECTS:
            raise ValueError("`policy.validation` is for versions that speak the task schema")
        if self.policy.audio_formats and self.dialect not in SPOKEN_DIALECTS:
            raise ValueError(
                "`policy.audio_formats` is for versions whose endpoint knows `config.format`: task and ulca"
            )
        return self

    @model_validator(mode="after")
    def _quality_is_of_its_pairs(self) -> VersionDraft:
        try:
            check_quality(self.policy.quality, self.language_pairs)
        except ValueError as error:
            raise ValueError(f"`policy.quality` {error}") from error
        return self

    @model_validator(mode="after")
    def _models_have_tensors(self) -> VersionDraft:
        if (self.policy.tensors is not None) != (self.dialect == "inference" and not self.policy.serves):
            raise ValueError("`policy.tensors` says how an endpoint of the dialect `inference` is asked, and no other")
        return self

    @model_validator(mode="after")
    def _speaks_as_it_is_asked(self) -> VersionDraft:
        tensors = self.policy.tensors
        decoupled = tensors is not None and tensors.decoupled
        for address in filter(None, (self.endpoint, *self.policy.endpoints)):
            if reason := misaddressed(address, self.dialect, decoupled, self.policy.websocket):
                raise ValueError(reason)
        if decoupled and self.policy.answer:
            raise ValueError("answers in several parts are not changed: leave `policy.answer` out")
        return self

    @model_validator(mode="after")
    def _has_a_tasks_address(self) -> VersionDraft:
        addresses = [self.endpoint, *self.policy.endpoints] if self.dialect == "ulca" and self.endpoint else []
        if len({task_at(address) for address in addresses}) > 1 or any(task_at(one) is None for one in addresses):
            raise ValueError(f"the address of a service that speaks ULCA ends with one task: {', '.join(TASK_NAMES)}")
        return self


class PriceDraft(_Draft):
    """What a service costs from a moment on; a plan's own price wins over the common one.

    Either ``unit_price`` for each of the listing's units beyond ``free_units``, or ``components``. ``minimum`` is what
    a month comes to at least. It counts from now on unless ``effective_from`` names a later moment.
    """

    plan_code: _Slug | None = None
    unit_price: Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=12)] = Decimal(0)
    free_units: Annotated[Decimal, Field(ge=0, max_digits=24, decimal_places=6)] = Decimal(0)
    components: Annotated[list[ComponentDraft], Field(max_length=20)] = []
    minimum: Amount = Decimal(0)
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "INR"
    effective_from: AwareDatetime | None = None

    @field_validator("unit_price", "free_units", mode="before")
    @classmethod
    def _no_floats(cls, value: Any) -> Any:
        return no_floats(value)

    @field_validator("currency")
    @classmethod
    def _is_billed_in(cls, currency: str) -> str:
        if currency != "INR":
            raise ValueError("prices are in INR here: a bill can't add up two currencies")
        return currency

    @model_validator(mode="after")
    def _says_one_thing(self) -> PriceDraft:
        if self.components and (self.unit_price or self.free_units):
            raise ValueError("a card has `components`, or `unit_price` and `free_units`: not both")
        if not self.components and "unit_price" not in self.model_fields_set:
            raise ValueError("name a `unit_price`, or `components`")
        names = [one.name if one.model == "flat" else one.meter for one in self.components]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"there are two prices on {twice}: put them in one, or on two meters")
        return self


class ServiceDraft(_Draft):
    """A listing as its provider describes it, with its first version and price."""

    slug: _Slug
    name: Annotated[str, Field(min_length=1, max_length=80)]
    summary: Annotated[str, Field(max_length=160)] = ""
    description: Annotated[str, Field(max_length=8000)] = ""
    category: Category
    unit: Unit = "requests"
    visibility: Visibility = "public"
    region: Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")] = "IN"
    retains_inputs: bool = False
    trains: bool = False
    max_requests_per_second: Annotated[int, Field(ge=1, le=100_000)] = 100
    typical_latency_ms: Annotated[int, Field(ge=1, le=600_000)] = 200
    uptime_sla: Annotated[Decimal, Field(ge=50, le=100)] = Decimal("99.9")
    docs_url: Annotated[str, Field(pattern=r"^(https?://\S+)?$", max_length=500)] = ""
    policy: ServicePolicyDraft = ServicePolicyDraft()
    version: VersionDraft
    price: PriceDraft
    credential_header: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")] = "Authorization"
    credential: Annotated[str, Field(pattern=r"^[\x21-\x7e][\x20-\x7e]*$", max_length=4096)] | None = None

    @model_validator(mode="after")
    def _items_are_a_tasks(self) -> ServiceDraft:
        if self.policy.cache is not None and self.policy.cache.items and self.version.dialect not in TASK_DIALECTS:
            raise ValueError("`policy.cache.items` is for services that speak the task schema")
        return self

    @model_validator(mode="after")
    def _unit_is_counted(self) -> ServiceDraft:
        if self.version.dialect in ("inference", "ulca") and self.unit not in COUNTED_UNITS:
            raise ValueError(f"calls of the dialect `{self.version.dialect}` are sold by {', '.join(COUNTED_UNITS)}")
        return self

    @field_validator("credential_header")
    @classmethod
    def _not_ours(cls, header: str) -> str:
        if header.lower() in _OUR_HEADERS or header.lower().startswith(("proxy-", "x-haat-")):
            raise ValueError("is a header that Haat sets itself: choose another one")
        return header


def field_errors(error: ValidationError) -> list[dict[str, str]]:
    """Return pydantic's complaints as ``{"field", "message"}``, without echoing the input."""
    return [
        {
            "field": ".".join(str(part) for part in item["loc"]) or "body",
            "message": item["msg"].removeprefix("Value error, "),
        }
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
