"""Requests one behind the other (RFC 9112, 9.3.2): answered in order, bounded, cut off at the first broken one."""

from gateway.http.case import Case, Sent, call, chunked, get, refuses

GET = Sent(method="GET")
NOWHERE = get(path="/nowhere")


def numbered(count: int) -> bytes:
    return b"".join(get(path=f"/v1/services/acme/echo/{n}") for n in range(count))


def in_order(count: int) -> tuple[Sent, ...]:
    return tuple(Sent(method="GET", target=f"/base/{n}") for n in range(count))


def post(body: bytes) -> bytes:
    return call(f"Content-Length: {len(body)}", body=body)


CASES: list[Case] = [
    Case("two", numbered(2), (200,) * 2, True, in_order(2)),
    Case("ten", numbered(10), (200,) * 10, True, in_order(10)),
    Case("sixty-four", numbered(64), (200,) * 64, True, in_order(64)),
    Case("as many as are queued and one more", numbered(65), (200,) * 65, False, in_order(65), bounded=True),
    Case("one too many", numbered(66), (200,) * 65, False, in_order(65), bounded=True),
    Case("a thousand", numbered(1000), (200,) * 65, False, in_order(65), bounded=True),
    Case("a thousand that are refused", NOWHERE * 1000, (404,) * 1000, True),
    Case(
        "bodies of both framings",
        post(b"one") + chunked(b"3\r\ntwo\r\n0\r\n\r\n") + post(b"three"),
        (200,) * 3,
        True,
        (Sent(b"one"), Sent(b"two"), Sent(b"three")),
    ),
    Case(
        "a refusal in the middle",
        post(b"one") + NOWHERE + post(b"two"),
        (200, 404, 200),
        True,
        (Sent(b"one"), Sent(b"two")),
    ),
    Case(
        "a refused body in the middle",
        post(b"one") + call("Content-Length: 3", path="/nowhere", body=b"two") + post(b"three"),
        (200, 404, 200),
        True,
        (Sent(b"one"), Sent(b"three")),
    ),
    Case(
        "a refused chunked body in the middle",
        post(b"one")
        + call("Transfer-Encoding: chunked", path="/nowhere", body=b"3\r\ntwo\r\n0\r\n\r\n")
        + post(b"three"),
        (200, 404, 200),
        True,
        (Sent(b"one"), Sent(b"three")),
    ),
    Case("no key in the middle", get() + call(key="") + get(), (200, 401, 200), True, (GET, GET)),
    Case("noise in the middle", get() + get() + b"garbage\r\n\r\n" + get(), (200, 200, 400), False, (GET, GET)),
    Case("a bad length in the middle", get() + call("Content-Length: x", body=b"x") + get(), (200, 400), False, (GET,)),
    Case("a bad chunk in the middle", get() + chunked(b"z\r\n\r\n") + get(), (200, 400), False, (GET,)),
    Case(
        "two framings in the middle",
        get() + chunked(b"0\r\n\r\n", "Content-Length: 3") + get(),
        (200, 400),
        False,
        (GET,),
    ),
    Case("two Hosts in the middle", get() + get("Host: other") + get(), (200, 400, 200), True, (GET, GET)),
    Case(
        "too large a body in the middle",
        get() + call("Content-Length: 1001", path="/v1/services/acme/small/x", body=b"x" * 1001) + get(),
        (200, 413, 200),
        True,
        (GET, GET),
    ),
    Case("too large a head in the middle", get() + get("X: " + "a" * 40_000) + get(), (200, 431), False, (GET,)),
    Case(
        "a WebSocket in the middle",
        get()
        + get(
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        + get(),
        (200, 400),
        False,
        (GET,),
    ),
    Case("TRACE in the middle", get() + call(method="TRACE") + get(), (200, 501, 200), True, (GET, GET)),
    Case("an unfinished request at the end", get() + get()[:-2], (200,), True, (GET,), unfinished=True),
    Case("an unfinished body at the end", get() + post(b"hello")[:-2], (200,), True, (GET,), unfinished=True),
    Case("close in the middle", get() + get("Connection: close") + get(), (200, 200), False, (GET, GET)),
    Case(
        "HEAD in the middle",
        get() + call(method="HEAD") + get(),
        (200,) * 3,
        True,
        (GET, Sent(method="HEAD"), GET),
        ("GET", "HEAD", "GET"),
    ),
    Case("empty lines between", get() + b"\r\n" + get() + b"\r\n\r\n", (200, 200), True, (GET, GET)),
    refuses("spaces between", b"  " + get()),
    Case("an empty line of LF between", get() + b"\n" + get(), (200, 200), True, (GET, GET)),
]
