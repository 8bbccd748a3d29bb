"""The results in words: tables by what belongs together, the figures wanted, and what to know beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.conditions import Conditions
from bench.report import Row, table

WANTED = {"haat-bare": 1.4, "haat-full": 2.2, "haat-full-2w": 2.5, "haat-sse": 1.5}
"""The CPU time a request that the gateway is built for, as multiples of nginx's."""
WANTED_DOOR = 1.3
WANTED_P99_MS, WANTED_START_SECONDS = 20.0, 10.0
NOTES = (
    "wrk: one thread, 64 connections kept alive, POST of 185 B, answer of 290 B; nginx with one worker is both the "
    "upstream and the bare proxy. SSE: 20 events, 5 ms apart, from a small uvloop server. Only the process tree of the "
    "proxy is charged. The ratio to nginx is the median of the ratios within the rounds.",
    "`haat-full` is `haat gateway` as it is run in earnest, on a snapshot, without PostgreSQL: authentication, "
    "subscription, windows for minute, hour and day, monthly quota, concurrency, breaker, headers, trace context and "
    "the usage journal on disk. Bringing the journal to PostgreSQL is the shipper's work, in its own process, and "
    "not in the figure. `haat-bare` finds the service and forwards; it is no mode of the product.",
    "A client mostly repeats its head on a connection, as the load here does, and a head that is equal to the last is "
    "not parsed again; of the answers' heads the same is true. `haat-full-in-turn` is the same load with seven keys in "
    "turn on each connection, so that every request's head is another and is parsed.",
    "No processor is pinned. On a virtual machine a write that wakes a peer sleeping on an idle core costs the writer "
    "10 to 25 µs; load generator and upstream go idle when the proxy is the slowest of the three, so slower proxies "
    "pay it more often. It is part of what is measured.",
    "The open loop is a generator of our own on uvloop, as wrk has none: 256 connections, requests leave by the clock "
    "in groups of ten a millisecond, latency counts from the instant a request was due, its wait for a connection and "
    "the generator's own delay included.",
)


def describe(rows: Sequence[Row], conditions: Conditions, left_out: Mapping[str, str], *, quick: bool) -> str:
    """Return Markdown: tables, whether the figures wanted are met, what to know.

    ``left_out`` has the reasons by the names of what could not be measured.
    """
    paced = [row for row in rows if "rate" in row.extra]
    closed = [row for row in rows if "ratio_to_nginx" in row.spreads and row not in paced]
    doors = [row for row in rows if "ratio_to_native" in row.extra]
    keyed = [row for row in rows if "keys" in row.extra]
    peers = [row for row in rows if "does" in row.extra]
    parts: list[str] = []
    if closed:
        parts += ["Median (least–most) of the rounds" + (", a quick run" if quick else "") + ":", table(closed)]
        parts.append(_listed(_ratio(row) for row in closed if row.name in WANTED))
        parts.append(_listed(_checked(row) for row in closed if "checked" in row.extra))
    if doors:
        parts += ["The front doors, each in rounds with the native call that it stands for:", table(doors)]
        parts.append(_listed(_door(row) for row in doors))
    if paced:
        parts += ["One gateway process, requests sent by the clock:", table(paced)]
        parts.append(_listed(_open_loop(row) for row in paced))
    if keyed:
        parts += ["Few keys and a million:", table(keyed)]
        parts.append(_listed(_keys(row) for row in keyed if "bytes_per_key" in row.extra))
    if peers:
        parts += ["What the peers do for a request:", _listed(f"{row.name}: {row.extra['does']}." for row in peers)]
    parts.append(_listed(f"{name} was left out: {reason}." for name, reason in left_out.items()))
    parts.append(_listed([*conditions.sentences(), *NOTES]))
    return "\n\n".join(part for part in parts if part)


def _listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _verdict(good: bool) -> str:
    return "met" if good else "missed"


def _ratio(row: Row) -> str:
    found, most = row.spreads["ratio_to_nginx"].median, WANTED[row.name]
    return f"{row.name}: {found:.2f} × nginx, wanted ≤ {most} ×: {_verdict(found <= most)}."


def _door(row: Row) -> str:
    found = row.extra["ratio_to_native"]
    return (
        f"{row.name}: {found:.2f} times the native call, which costs {row.extra['native_cpu_us']:.1f} µs; wanted ≤ "
        f"{WANTED_DOOR} times: {_verdict(found <= WANTED_DOOR)}."
    )


def _checked(row: Row) -> str:
    there = [name for name, done in row.extra["checked"].items() if done]
    missing = [name for name, done in row.extra["checked"].items() if not done]
    text = f"{row.name}, looked at before the rounds: {', '.join(there)}"
    return f"{text}. Not found: {', '.join(missing)}." if missing else f"{text}."


def _open_loop(row: Row) -> str:
    extra = row.extra
    text = (
        f"{row.name}: {extra['rate']:,}/s for {extra['seconds']} s, {extra['answered']:,} of "
        f"{extra['rate'] * extra['seconds']:,} answered, the slowest in {extra['max_ms']:.1f} ms; "
        f"{extra['waited']:,} found every connection taken. The generator used "
        f"{extra['generator_cpu_percent']:.0f} % of a core and was itself late by "
        f"{extra['generator_late_p99_ms']:.1f} ms at p99"
    )
    if "metered" not in extra:
        return f"{text}."
    missing = extra["answered_and_not_metered"]
    good = row.spreads["p99_ms"].median < WANTED_P99_MS and not row.errors and not missing
    return (
        f"{text}; {extra['metered']:,} calls are in the journal, {missing} were answered and not metered. Wanted: "
        f"p99 < {WANTED_P99_MS:.0f} ms, no error, every answered call metered: {_verdict(good)}."
    )


def _keys(row: Row) -> str:
    extra = row.extra
    start = extra["start_seconds"]
    verdict = _verdict(start < WANTED_START_SECONDS)
    postgresql = (
        f"{extra['start_from_postgresql_seconds']:.1f} s with {extra['postgresql_keys']:,} of them from PostgreSQL"
    )
    return (
        f"{extra['keys']:,} keys and {extra['subscriptions']:,} subscriptions: first answer {start:.1f} s after the "
        f"start of the process, from the snapshot on disk (wanted < {WANTED_START_SECONDS:.0f} s: {verdict}), "
        f"{postgresql}; "
        f"{extra['bytes_per_key']} bytes of memory a key, its share of a subscription included; a call costs "
        f"{extra['ratio_to_few_keys']:.2f} times what it costs with few keys."
    )
