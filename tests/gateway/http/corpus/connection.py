"""Connections that stay or end, what is only for the next hop (RFC 9110, 7.6.1), upgrades, HEAD."""

from gateway.http.case import AUTH, KEY, Case, Sent, call, get, head, passes, refuses

WEBSOCKET = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
HEALTH = head("GET /health/live HTTP/1.1", "Host: g")

CASES: list[Case] = [
    passes("close", call("Connection: close"), kept=False),
    passes("close in capitals", call("Connection: CLOSE"), kept=False),
    passes("close among others", call("Connection: X-Own , close,", "X-Own: a"), kept=False, lacks=("x-own",)),
    passes("close in a second field", call("Connection: keep-alive", "Connection: close"), kept=False),
    passes("keep-alive", call("Connection: keep-alive", "Keep-Alive: timeout=5"), lacks=("keep-alive",)),
    passes("a name that begins like close", call("Connection: closed", "Closed: a"), lacks=("closed",)),
    passes("close of HTTP/1.0", get("Connection: close", version="1.0"), method="GET", kept=False),
    passes("both of HTTP/1.0", get("Connection: keep-alive, close", version="1.0"), method="GET", kept=False),
    Case("nothing is read behind close", get("Connection: close") + get(), (200,), False, (Sent(method="GET"),)),
    Case("nothing is read behind HTTP/1.0", get(version="1.0") + get(), (200,), False, (Sent(method="GET"),)),
    Case(
        "nothing is read behind close, noise neither",
        get("Connection: close") + b"\x00\x01",
        (200,),
        False,
        (Sent(method="GET"),),
    ),
    passes(
        "a named field", call("Connection: X-Own", "X-Own: a", "X-Other: b"), lacks=("x-own",), has={"x-other": "b"}
    ),
    passes("a named field before", call("X-Own: a", "Connection: x-own"), lacks=("x-own",)),
    passes("a named field in another case", call("Connection: X-OWN", "x-oWn: a"), lacks=("x-own",)),
    passes("a named field twice", call("X-Own: a", "Connection: x-own", "X-Own: b"), lacks=("x-own",)),
    passes("named fields in two", call("Connection: a", "Connection: b", "A: 1", "B: 2"), lacks=("a", "b")),
    passes("named and not there", call("Connection: X-Own")),
    passes("an empty Connection", call("Connection:")),
    passes("commas alone", call("Connection: , ,")),
    # What everybody needs stays although it is named (RFC 9110, 7.6.1: a sender must not name it).
    passes("the length is named", call("Connection: Content-Length", "Content-Length: 5", body=b"hello"), b"hello"),
    passes("the key is named", call("Connection: Authorization, Host")),
    passes(
        "hop-by-hop fields",
        call(
            "TE: trailers",
            "Trailer: X",
            "Proxy-Authorization: Basic eDp5",
            "Proxy-Connection: keep-alive",
            "Keep-Alive: 1",
        ),
        lacks=("te", "trailer", "proxy-authorization", "proxy-connection", "keep-alive"),
    ),
    passes("a field for our answers only", call("Proxy-Authenticate: Basic"), lacks=("proxy-authenticate",)),
    # An upgrade may be ignored (RFC 9110, 7.8), so that clients that offer HTTP/2 are served.
    passes("an offer of HTTP/2", get(*H2C), method="GET", lacks=("upgrade", "http2-settings", "connection")),
    passes(
        "an offer of HTTP/2 with a body", call(*H2C, "Content-Length: 5", body=b"hello"), b"hello", lacks=("upgrade",)
    ),
    passes(
        "an offer of HTTP/2 with chunks",
        call(*H2C, "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        b"hello",
    ),
    Case(
        "a request behind an offer of HTTP/2",
        call(*H2C, "Content-Length: 5", body=b"hello") + get(),
        (200, 200),
        True,
        (Sent(b"hello"), Sent(method="GET")),
    ),
    passes(
        "an upgrade that Connection doesn't name",
        call("Upgrade: h2c", "Content-Length: 2", body=b"hi"),
        b"hi",
        lacks=("upgrade",),
    ),
    passes(
        "an upgrade of HTTP/1.0", get("Connection: Upgrade", "Upgrade: h2c", version="1.0"), method="GET", kept=False
    ),
    refuses("a WebSocket where none is declared", get("Connection: Upgrade", *WEBSOCKET)),
    refuses("a WebSocket and more behind it", get("Connection: Upgrade", *WEBSOCKET) + get()),
    refuses("a WebSocket with a body", call("Connection: Upgrade", *WEBSOCKET, "Content-Length: 5", body=b"hello")),
    refuses(
        "a WebSocket without a key",
        head("GET /v1/services/acme/echo/invoke HTTP/1.1", "Host: g", "Connection: Upgrade", *WEBSOCKET),
        401,
    ),
    passes("HEAD and its answer", call(method="HEAD"), method="HEAD"),
    Case("HEAD twice", call(method="HEAD") * 2, (200, 200), True, (Sent(method="HEAD"),) * 2, ("HEAD", "HEAD")),
    Case(
        "HEAD before GET",
        call(method="HEAD") + get(),
        (200, 200),
        True,
        (Sent(method="HEAD"), Sent(method="GET")),
        ("HEAD", "GET"),
    ),
    Case("HEAD of nothing", call(method="HEAD", path="/nowhere"), (404,), True, methods=("HEAD",)),
    Case("HEAD without a key", call(method="HEAD", key=""), (401,), True, methods=("HEAD",)),
    Case("health", head("GET /health/startup HTTP/1.1", "Host: g"), (200,), True),
    Case("liveness, twice", HEALTH * 2, (200, 200), True),
    Case("readiness of HEAD", head("HEAD /health/ready HTTP/1.1", "Host: g"), (200,), True, methods=("HEAD",)),
    Case(
        "health with a body",
        head("GET /health/ready HTTP/1.1", "Host: g", "Content-Length: 5") + b"hello" + HEALTH,
        (200, 200),
        True,
    ),
    Case("health between calls", get() + HEALTH + get(), (200, 200, 200), True, (Sent(method="GET"),) * 2),
    Case("health of HTTP/1.0", head("GET /health/live HTTP/1.0"), (200,), False),
    refuses("health without Host", head("GET /health/live HTTP/1.1"), kept=True),
    refuses("another key after one", call("X-API-Key: other") + b"", kept=True),
    passes(
        "the key in a field of its own",
        head("POST /v1/services/acme/echo/invoke HTTP/1.1", "Host: g", AUTH, f"X-API-Key: {KEY}"),
        lacks=("x-api-key",),
    ),
]
