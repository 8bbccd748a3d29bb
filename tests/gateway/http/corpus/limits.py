"""How much a request may be: target 414, head 431, body 413, each before more of it is read."""

from gateway.http.case import AUTH, PATH, TARGET, Case, Sent, call, get, head, passes, refuses

SMALL = "/v1/services/acme/small/invoke"
"""A service whose bodies may have 1,000 bytes."""
ROOM = 8192 - len(PATH) - 1


def many(count: int) -> list[str]:
    return [f"X-{n}: {n}" for n in range(count)]


CASES: list[Case] = [
    passes("the longest target", get(path=f"{PATH}/{'a' * ROOM}"), method="GET", target=f"{TARGET}/{'a' * ROOM}"),
    refuses("a target one byte longer", get(path=f"{PATH}/{'a' * (ROOM + 1)}"), 414, kept=True),
    refuses("a long query", get(path=f"{PATH}?{'a' * 9000}"), 414, kept=True),
    refuses("a target longer than a whole head", get(path=f"{PATH}/{'a' * 40_000}"), 414),
    refuses("a target that never ends", b"GET /" + b"a" * 40_000, 414),
    passes("many fields", call(*many(100)), has={"x-99": "99"}),
    refuses("too many fields", call(*many(200)), 431),
    refuses("too many empty fields", call(*["X:"] * 2000), 431),
    passes("a long field", call("X-Long: " + "a" * 20_000), has={"x-long": "a" * 20_000}),
    refuses("a field that is too long", call("X-Long: " + "a" * 40_000), 431),
    refuses("a field that never ends", head(f"GET {PATH} HTTP/1.1", "X-Long: " + "a" * 40_000)[:-4], 431),
    refuses("a name that is too long", call("a" * 40_000 + ": b"), 431),
    refuses("a field of the gateway's own that is too long", call("X-Haat-Tags: " + "a" * 40_000), 431),
    refuses("a key that is too long", call(key="Authorization: Bearer " + "a" * 40_000), 431),
    refuses("a Host that is too long", head(f"GET {PATH} HTTP/1.1", "Host: " + "a" * 40_000, AUTH), 431),
    Case(
        "a request behind a large body",
        call("Content-Length: 60000", body=b"x" * 60_000) + get(),
        (200, 200),
        True,
        (Sent(b"x" * 60_000), Sent(method="GET")),
    ),
    Case(
        "fields that are too long together with those of the request before",
        call("X-Long: " + "a" * 20_000) + get("X-Long: " + "a" * 20_000),
        (200, 200),
        True,
        (Sent(), Sent(method="GET")),
    ),
    passes("the largest body", call("Content-Length: 1000", path=SMALL, body=b"x" * 1000), b"x" * 1000),
    Case("a body one byte larger, declared", call("Content-Length: 1001", path=SMALL), (413,), True, unfinished=True),
    refuses(
        "a body one byte larger, sent too", call("Content-Length: 1001", path=SMALL, body=b"x" * 1001), 413, kept=True
    ),
    refuses(
        "a body one byte larger, in one chunk",
        call("Transfer-Encoding: chunked", path=SMALL, body=b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"),
        413,
    ),
    refuses(
        "a body one byte larger, in two chunks",
        call("Transfer-Encoding: chunked", path=SMALL, body=b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n0\r\n\r\n"),
        413,
    ),
    passes(
        "the largest chunked body",
        call("Transfer-Encoding: chunked", path=SMALL, body=b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"),
        b"x" * 1000,
    ),
    refuses("a body beyond the limit, expected", call("Expect: 100-continue", "Content-Length: 1001", path=SMALL), 413),
    refuses("a body beyond the limit without a key", call("Content-Length: 99999999", key=""), 401),
]
