"""What is waited for, and how long: 10 seconds for a head, 75 for the next request (the defaults)."""

from gateway.http.case import PATH, Case, Sent, call, chunked, get

GET = Sent(method="GET")
CASES: list[Case] = [
    Case("a connection on which nothing comes", b"", (), False, patience=80),
    Case("a young connection on which nothing came yet", b"", (), True, patience=70),
    Case("an idle connection", get(), (200,), False, (GET,), patience=80),
    Case("a connection that is idle a little", get(), (200,), True, (GET,), patience=70),
    Case("half a request line", b"GET /v1/ser", (408,), False, patience=11),
    Case("half a head", f"GET {PATH} HTTP/1.1\r\nHost: g\r\nX-".encode(), (408,), False, patience=11),
    Case("half a head, a little later", f"GET {PATH} HTTP/1.1\r\nHost: g\r\nX-".encode(), (), True, patience=9),
    Case("half a head behind a request", get() + get()[:-2], (200, 408), False, (GET,), patience=11),
    Case("no body", call("Content-Length: 5"), (408,), False, patience=11),
    Case("half a body", call("Content-Length: 10", body=b"hello"), (408,), False, patience=11),
    Case("half a body, a little later", call("Content-Length: 10", body=b"hello"), (), True, patience=9),
    Case("half a chunk", chunked(b"a\r\nhello"), (408,), False, patience=11),
    Case("a large body at a good pace", call("Content-Length: 60000", body=b"x" * 50_000), (), True, patience=40),
    Case(
        "an expected body that never comes",
        call("Expect: 100-continue", "Content-Length: 5"),
        (408,),
        False,
        interim=1,
        patience=11,
    ),
    Case(
        "the rest of a refused body",
        call("Content-Length: 10", path="/nowhere", body=b"hello"),
        (404,),
        False,
        patience=11,
    ),
]
