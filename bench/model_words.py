"""The results of `bench.models` in words: tables, the figures wanted, and what to know beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.conditions import Conditions
from bench.many_models import LIMIT_MB
from bench.measure import Sample, Spread
from bench.model_servers import BATCH, ONE_BATCH_MS, PEERS, litserve, ours, ray_serve

if TYPE_CHECKING:
    from bench.model_servers import Server
    from bench.models import Found

MARKERS = ("<!-- bench-models: begin -->", "<!-- bench-models: end -->")
LEAST_ONE_WORKER, LEAST_FOUR_WORKERS = 200, 800
TIMES_LITSERVE, TIMES_RAY, MOST_ADDED_MS, MOST_BACK_SECONDS = 2.0, 5.0, 1.0, 2.0
_TITLES = {"ten": "The model that takes ten milliseconds a batch", "text": "The text model, in ONNX"}
_NOTES = (
    "Each server is started anew in each round, alone, with one worker a model or, for the model of ten "
    "milliseconds, with four; batches of at most 32 and a wait of at most 5 ms; BentoML finds its wait by itself. wrk "
    "has one thread, and each caller a connection that is kept. CPU and memory are those of the server's process tree, "
    "its workers included.",
    "What a server adds for one caller is the median of the calls less what the model takes by itself: the median of "
    "300 batches in a process that serves nobody, a millisecond apart, anew in each round.",
    "In a crash the process that runs the ten-millisecond model is killed under 32 callers, who try again after 50 ms, "
    "while four others call the text model. A caller without an answer for ten seconds has failed.",
)


def describe(found: Found, conditions: Conditions, *, quick: bool) -> str:
    """Return Markdown of all that was found."""
    parts = ["Median (least–most) of the rounds" + (", a quick run." if quick else ".")]
    for model, title in _TITLES.items():
        rows = list(_rows(found, model))
        if rows:
            head = "| | callers | requests/s | p50 ms | p95 ms | p99 ms | CPU µs/request | RSS MB | errors |"
            parts += [f"{title}:", "\n".join([head, "|---|---|---|---|---|---|---|---|---|", *rows])]
    parts.append(_listed(_figures(found)))
    if found.crashes:
        head = "| killed under load | calls | failed | back after | calls of the other model | failed |"
        rows = [
            f"| {name} | {crash.calls:,} | {crash.failed:,} | "
            f"{'not in 20 s' if crash.back_seconds is None else f'{crash.back_seconds:.2f} s'} | "
            f"{crash.others_calls:,} | {crash.others_failed:,} |"
            for name, crash in found.crashes.items()
        ]
        parts.append("\n".join([head, "|---|---|---|---|---|---|", *rows]))
    measured = {name for name, _, _ in found.samples}
    does = [
        f"{server.name}: {server.does}."
        for server in (ours(1), *PEERS)
        if server.name in measured and server.workers == 1
    ]
    parts.append(_listed(iter(does)))
    parts.append(_listed(f"{name} was left out: {reason}." for name, reason in found.left_out.items()))
    parts.append(_listed(iter([*conditions.sentences(), *_NOTES])))
    return "\n\n".join(part for part in parts if part)


def _rows(found: Found, wanted: str) -> Iterator[str]:
    for (server, model, callers), samples in found.samples.items():
        if model != wanted:
            continue
        formats = {"rps": ",.0f", "p50_ms": ".1f", "p95_ms": ".1f", "p99_ms": ".1f", "cpu_us_per_request": ",.0f"}
        cells = [format(_spread(samples, figure), spec) for figure, spec in (*formats.items(), ("rss_mb", ",.0f"))]
        errors = sum(sample.errors for sample in samples)
        yield f"| {server} | {callers} | {' | '.join(cells)} | {errors:,} |"


def _spread(samples: list[Sample], figure: str) -> Spread:
    return Spread.of([getattr(sample, figure) for sample in samples])


def _figures(found: Found) -> Iterator[str]:
    """Say of each figure that is wanted whether it is met."""
    one, four = ours(1).name, ours(4).name
    for workers in (1, 4):
        for callers in (32, 128):
            for peer, times in ((litserve(workers), TIMES_LITSERVE), (ray_serve(workers), TIMES_RAY)):
                yield from _times(found, ours(workers), peer, callers, times)
    if alone := found.samples.get((one, "ten", 1)):
        itself = Spread.of(found.alone_ms).median
        added = _spread(alone, "p50_ms").median - itself
        yield (
            f"One caller: {added:.2f} ms added to the model's {itself:.2f}, wanted < 1 ms: "
            f"{_met(added < MOST_ADDED_MS)}."
        )
    for name, least in ((one, LEAST_ONE_WORKER), (four, LEAST_FOUR_WORKERS)):
        if samples := found.samples.get((name, "ten", 32)):
            got = _spread(samples, "rps").median
            yield f"{name}: {got:,.0f} requests/s with 32 callers, wanted ≥ {least}: {_met(got >= least)}."
    if crash := found.crashes.get(one):
        fine = crash.back_seconds is not None and crash.back_seconds <= MOST_BACK_SECONDS and not crash.others_failed
        back = "not" if crash.back_seconds is None else f"after {crash.back_seconds:.2f} s"
        yield (
            f"Its worker killed under load: {crash.failed} calls failed, back {back}, {crash.others_failed} calls of "
            f"the other model failed; wanted: back within 2 s, others unaffected: {_met(fine)}."
        )
    if many := found.many:
        fine = many.most_counted_mb <= LIMIT_MB and not many.unloaded and not many.failed
        yield (
            f"A thousand models, {len(many.pids)} of them hot, within {LIMIT_MB:,} MB: at most {many.most_mb:,.0f} MB "
            f"as the kernel counts it and {many.most_counted_mb:,.0f} MB as the engine does, hot models loaded again "
            f"{many.unloaded} times, {many.failed} of their {many.calls:,} calls failed; {many.cold_calls} calls of "
            f"others, {many.cold_refused} refused and {many.cold_failed} failed: {_met(fine)}."
        )


def _times(found: Found, server: Server, peer: Server, callers: int, wanted: float) -> Iterator[str]:
    """Say how many times a peer's requests/s ours answers. Nobody answers more than the model gives: where that is
    less than so many times what the peer answers, there is nothing to be met."""
    mine, theirs = (found.samples.get((name, "ten", callers)) for name in (server.name, peer.name))
    if not (mine and theirs):
        return
    got, from_peer = _spread(mine, "rps").median, max(1.0, _spread(theirs, "rps").median)
    most = min(callers, server.workers * BATCH) / ONE_BATCH_MS * 1000
    words = f"{server.name}, {callers} callers: {got / from_peer:.2f} × the requests/s of {peer.name}"
    if most < wanted * from_peer:
        given = f"more than the model gives ({most:,.0f}), of which it reaches {got / most:.0%}"
        yield f"{words}; {wanted:.0f} × would be {given}."
    else:
        yield f"{words}, wanted ≥ {wanted:.0f} ×: {_met(got >= wanted * from_peer)}."


def _met(yes: bool) -> str:
    return "met" if yes else "missed"


def _listed(sentences: Iterator[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
