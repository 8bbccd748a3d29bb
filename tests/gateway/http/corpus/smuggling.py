"""The known shapes of request smuggling: whoever reads them, no request hides in another."""

from gateway.http.case import AUTH, PATH, Case, Sent, call, chunked, get, head, passes, refuses

HIDDEN = get(path="/v1/services/acme/echo/hidden")
SIZE = len(HIDDEN)
ZERO = b"0\r\n\r\n"

CASES: list[Case] = [
    refuses("CL.TE", call(f"Content-Length: {len(ZERO) + SIZE}", "Transfer-Encoding: chunked", body=ZERO + HIDDEN)),
    refuses(
        "TE.CL", call("Transfer-Encoding: chunked", "Content-Length: 4", body=b"%x\r\n%b\r\n" % (SIZE, HIDDEN) + ZERO)
    ),
    refuses(
        "TE.TE with another case", call("Transfer-Encoding: chunked", "transfer-encoding: Identity", body=ZERO + HIDDEN)
    ),
    refuses(
        "TE.TE with a misspelt second", call("Transfer-Encoding: chunked", "Transfer-Encoding: cow", body=ZERO + HIDDEN)
    ),
    refuses(
        "TE.TE with a misspelt first",
        call("Transfer-Encoding: cow", "Transfer-Encoding: chunked", body=ZERO + HIDDEN),
        501,
    ),
    refuses(
        "TE with a tab before the colon", call("Transfer-Encoding\t: chunked", "Content-Length: 5", body=ZERO + HIDDEN)
    ),
    refuses(
        "TE behind a vertical tab", call("Transfer-Encoding: \x0bchunked", "Content-Length: 5", body=ZERO + HIDDEN)
    ),
    refuses("TE behind a bare LF", call("X: y\nTransfer-Encoding: chunked", "Content-Length: 5", body=ZERO + HIDDEN)),
    refuses("TE behind a bare CR", call("X: y\rTransfer-Encoding: chunked", "Content-Length: 5", body=ZERO + HIDDEN)),
    refuses("TE folded", call("Transfer-Encoding:", " chunked", "Content-Length: 5", body=ZERO + HIDDEN)),
    refuses(
        "TE folded behind another", call("X: y", " Transfer-Encoding: chunked", "Content-Length: 5", body=ZERO + HIDDEN)
    ),
    refuses(
        "TE and CL of HTTP/1.0",
        call("Transfer-Encoding: chunked", "Content-Length: 5", version="1.0", body=ZERO + HIDDEN),
    ),
    refuses("CL.CL", call("Content-Length: 0", f"Content-Length: {SIZE}", body=HIDDEN)),
    refuses("CL.CL in a list", call(f"Content-Length: 0, {SIZE}", body=HIDDEN)),
    refuses("CL with a plus", call(f"Content-Length: +{SIZE}", body=HIDDEN)),
    passes("CL.0", call(f"Content-Length: {SIZE}", body=HIDDEN), b"HIDDEN"),
    passes("CL.0 of GET", call(f"Content-Length: {SIZE}", method="GET", body=HIDDEN), b"HIDDEN", method="GET"),
    passes(
        "CL.0 of OPTIONS", call(f"Content-Length: {SIZE}", method="OPTIONS", body=HIDDEN), b"HIDDEN", method="OPTIONS"
    ),
    Case(
        "CL of HEAD",
        call(f"Content-Length: {SIZE}", method="HEAD", body=HIDDEN) + get(),
        (200, 200),
        True,
        (Sent(b"HIDDEN", "HEAD"), Sent(method="GET")),
        ("HEAD", "GET"),
    ),
    Case(
        "0.CL: a request without a length, then its body as a request",
        call() + HIDDEN,
        (200, 200),
        True,
        (Sent(), Sent(method="GET", target="/base/hidden")),
    ),
    Case(
        "a body of one whose length is named in Connection",
        call("Connection: Content-Length", f"Content-Length: {SIZE}", body=HIDDEN) + get(),
        (200, 200),
        True,
        (Sent(b"HIDDEN"), Sent(method="GET")),
    ),
    Case(
        "a chunked body whose coding is named in Connection",
        call(
            "Connection: Transfer-Encoding", "Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n" % (SIZE, HIDDEN) + ZERO
        )
        + get(),
        (200, 200),
        True,
        (Sent(b"HIDDEN"), Sent(method="GET")),
    ),
    Case(
        "a refused body is not a request",
        call(f"Content-Length: {SIZE}", path="/nowhere", body=HIDDEN) + get(),
        (404, 200),
        True,
        (Sent(method="GET"),),
    ),
    Case(
        "health's body is not a request",
        head("GET /health/live HTTP/1.1", "Host: g", f"Content-Length: {SIZE}") + HIDDEN + get(),
        (200, 200),
        True,
        (Sent(method="GET"),),
    ),
    Case(
        "an upgrade's body is not a request",
        call("Connection: Upgrade", "Upgrade: h2c", f"Content-Length: {SIZE}", body=HIDDEN) + get(),
        (200, 200),
        True,
        (Sent(b"HIDDEN"), Sent(method="GET")),
    ),
    refuses(
        "CONNECT with a body",
        head("CONNECT gateway:80 HTTP/1.1", "Host: gateway:80", AUTH, f"Content-Length: {SIZE}") + HIDDEN,
        501,
    ),
    refuses("a chunk size that overflows to 0", chunked(b"10000000000000000\r\n\r\n" + HIDDEN)),
    Case("a chunk size that overflows 32 bits to 0", chunked(b"100000000\r\n\r\n" + HIDDEN), (), True),
    refuses("a chunk size cut at a NUL", chunked(b"0\x005\r\n\r\n" + HIDDEN)),
    refuses("a chunk whose end is not there", chunked(b"0\r\n" + HIDDEN)),
    refuses("a chunk extension that hides a line end", chunked(b"0;\n\r\n\r\n" + HIDDEN)),
    passes("a chunk that holds a request", chunked(b"%x\r\n%b\r\n" % (SIZE, HIDDEN) + ZERO), b"HIDDEN"),
    Case(
        "a target split by a line end",
        head(f"GET {PATH} HTTP/1.1\r\nX: y", "", f"GET {PATH}/hidden HTTP/1.1"),
        (400, 400),
        True,
    ),
    refuses("a request line in a target", head(f"GET {PATH} HTTP/1.1 HTTP/1.1", "Host: g", AUTH)),
    passes(
        "an encoded line end in the target",
        get(path=PATH + "/%0d%0aX:%20y"),
        method="GET",
        target="/base/invoke/%0d%0aX:%20y",
    ),
    refuses("a line end of Unicode in a name", call("X\xe2\x80\xa8Y: z")),
    refuses("a name that ends a line", call("X\r: y")),
    refuses("a first field that is folded", head(f"GET {PATH} HTTP/1.1", " X: y", "Host: g", AUTH)),
    refuses(
        "a second request line in the head",
        head(f"GET {PATH} HTTP/1.1", f"GET {PATH}/hidden HTTP/1.1", "Host: g", AUTH),
    ),
    passes(
        "fields that would be ours",
        call("X-Request-ID: mine", "X-Haat-Units: 1", "X-Forwarded-Host: evil"),
        lacks=("x-haat-user",),
    ),
]
CASES = [
    case._replace(upstream=tuple(sent._replace(body=sent.body.replace(b"HIDDEN", HIDDEN)) for sent in case.upstream))
    for case in CASES
]
