"""What happens with a request that is here whole before it goes to the provider: the built-in steps, in order.

Plugins take their places among these by the same numbers and names (`haat.plugins.order`). A step looks at
a route once and says whether it has anything to do there; what is left is the tuple of plain
functions that a call runs through. A route with no steps costs its calls nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from haat.gateway.cache.step import cache_step
from haat.gateway.dialects.inference import inference_step
from haat.gateway.dialects.step import meter, meter_events, usage_step
from haat.gateway.dialects.ulca import ulca_step
from haat.gateway.market import versions
from haat.gateway.rollout.shadow import note, shadow_step
from haat.gateway.transforms import transforms_step
from haat.gateway.validation import validation_step
from haat.plugins.order import Place

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route, Step


class BuiltIn(NamedTuple):
    """A step of the house. ``of`` returns what a route's calls must go through, or None for nothing.

    ``translates`` says that it asks the endpoint in that one's words: where none is asked there is nothing to do.
    """

    name: str
    order: int
    summary: str
    of: Callable[[Gateway, Route], Step | None]
    translates: bool = False


STEPS: tuple[BuiltIn, ...] = (
    BuiltIn("validation", 650, "Hold batches against what their version says of them", validation_step),
    BuiltIn("shadow", 660, "Note calls that are to be copied to another version", shadow_step),
    BuiltIn("transforms", 700, "Change requests and answers as their version declares", transforms_step),
    BuiltIn("cache", 900, "Answer from the cache, or keep the provider's answer there", cache_step),
    BuiltIn("inference", 950, "Ask a model its task in tensors, where its endpoint speaks those", inference_step, True),
    BuiltIn("ulca", 950, "Ask a service in ULCA's words, where its endpoint speaks those", ulca_step, True),
    BuiltIn("usage", 950, "Read from the answer what its provider says it has used", usage_step),
)
"""In the order in which requests meet them; answers come back the other way round."""

STAGES: dict[str, tuple[Place, ...]] = {
    "authenticate": (Place("api-key", 900),),
    "request": tuple(Place(step.name, step.order) for step in STEPS),
    "upstream": (Place("least-load", 900),),
    "usage": (Place("journal", 100),),
}
"""Where plugins can place themselves: every pass of a call with the stages of the house."""

SUMMARIES: dict[str, str] = {
    "api-key": "Find the credential behind the call's API key",
    "least-load": "Choose the endpoint with the fewest calls",
    "journal": "Record the usage event before the answer's last byte",
    **{step.name: step.summary for step in STEPS},
}
"""What each stage does, in a sentence."""


def prepare(gateway: Gateway, route: Route, *, asks_endpoint: bool = True) -> None:
    """Give a new route its steps, those of plugins among them, and what its answers say of the version."""
    settings = gateway.settings
    steps = {step.name: step.of if asks_endpoint or not step.translates else _nothing for step in STEPS}
    route.steps = gateway.hooks.arrange(steps, route)
    route.passes_forms = all(step in (meter, meter_events, note) for step in route.steps)
    route.passes_parts = all(step in (meter_events, note) for step in route.steps)
    route.lines = versions.lines(route.service, route.version, settings.portal_address, settings.gateway_address)


def _nothing(gateway: Gateway, route: Route) -> Step | None:
    return None
