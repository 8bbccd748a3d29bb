"""The counts of an engine's models in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from haat.models.engines.local.counters import Counters, Histogram
from haat.models.engines.port import State, Status

METRICS: dict[str, tuple[str, str]] = {
    "models_calls_total": ("counter", "Calls that the engine has taken."),
    "models_inputs_total": ("counter", "Inputs of those calls."),
    "models_errors_total": ("counter", "Calls that failed or were refused, by the code of the error."),
    "models_abandoned_total": ("counter", "Calls whose caller has gone."),
    "models_loads_total": ("counter", "Workers that have loaded the model."),
    "models_unloads_total": ("counter", "How often the model has given its memory back."),
    "models_workers_lost_total": ("counter", "Workers that died or were killed at work."),
    "models_batch_size": ("histogram", "Inputs of a batch."),
    "models_queue_seconds": ("histogram", "How long an input has waited."),
    "models_inference_seconds": ("histogram", "How long a batch has run."),
    "models_load_seconds": ("histogram", "How long loading has taken, the sample call included."),
    "models_queued": ("gauge", "Inputs that wait."),
    "models_in_flight": ("gauge", "Inputs in batches that run."),
    "models_workers": ("gauge", "Workers that have the model loaded."),
    "models_memory_bytes": ("gauge", "Memory that the model takes."),
    "models_utilisation_ratio": ("gauge", "Share of the last ten seconds in which its workers were at work, 0 to 1."),
    "models_latency_p95_seconds": ("gauge", "What 95 of 100 calls of the last ten seconds were answered within."),
    "models_up": ("gauge", "0 while the model can't be loaded."),
}


def render(models: Mapping[str, tuple[Counters, State]]) -> str:
    """Return all metrics of the models, by their keys."""
    lines: list[str] = []
    for name, (kind, meaning) in METRICS.items():
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
        for key, (counters, state) in models.items():
            lines += _SAMPLES[name](name, f'model="{_escape(key)}"', counters, state)
    return "\n".join(lines) + "\n"


Samples = Callable[[str, str, Counters, State], Iterator[str]]


def _one(value: Callable[[Counters, State], float]) -> Samples:
    def samples(name: str, label: str, counters: Counters, state: State) -> Iterator[str]:
        yield f"{name}{{{label}}} {value(counters, state):.10g}"

    return samples


def _histogram(of: Callable[[Counters], Histogram]) -> Samples:
    def samples(name: str, label: str, counters: Counters, _: State) -> Iterator[str]:
        histogram, total = of(counters), 0
        for edge, count in zip(histogram.edges, histogram.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{label},le="{edge:g}"}} {total}'
        yield f'{name}_bucket{{{label},le="+Inf"}} {histogram.count}'
        yield f"{name}_sum{{{label}}} {histogram.total:.10g}"
        yield f"{name}_count{{{label}}} {histogram.count}"

    return samples


def _errors(name: str, label: str, counters: Counters, _: State) -> Iterator[str]:
    for code, count in sorted(counters.errors.items()):
        yield f'{name}{{{label},code="{code}"}} {count}'


_SAMPLES: dict[str, Samples] = {
    "models_calls_total": _one(lambda counters, _: counters.calls),
    "models_inputs_total": _one(lambda counters, _: counters.inputs),
    "models_errors_total": _errors,
    "models_abandoned_total": _one(lambda counters, _: counters.abandoned),
    "models_loads_total": _one(lambda counters, _: counters.loads),
    "models_unloads_total": _one(lambda counters, _: counters.unloads),
    "models_workers_lost_total": _one(lambda counters, _: counters.lost),
    "models_batch_size": _histogram(lambda counters: counters.batch_size),
    "models_queue_seconds": _histogram(lambda counters: counters.queue_seconds),
    "models_inference_seconds": _histogram(lambda counters: counters.inference_seconds),
    "models_load_seconds": _histogram(lambda counters: counters.load_seconds),
    "models_queued": _one(lambda _, state: state.queued),
    "models_in_flight": _one(lambda _, state: state.in_flight),
    "models_workers": _one(lambda _, state: state.workers),
    "models_memory_bytes": _one(lambda _, state: state.memory_bytes),
    "models_utilisation_ratio": _one(lambda _, state: state.utilisation),
    "models_latency_p95_seconds": _one(lambda _, state: state.latency_p95),
    "models_up": _one(lambda _, state: state.status is not Status.ERROR),
}


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
