"""Expect: 100-continue (RFC 9110, 10.1.1)."""

from gateway.http.case import Case, Sent, call, chunked, get, passes, refuses

EXPECT = "Expect: 100-continue"
CASES: list[Case] = [
    passes(
        "a body that waits to be asked for", call(EXPECT, "Content-Length: 5", body=b"hello"), b"hello", interim=None
    ),
    passes("in capitals", call("Expect: 100-CONTINUE", "Content-Length: 5", body=b"hello"), b"hello", interim=None),
    passes("a chunked body", chunked(b"5\r\nhello\r\n0\r\n\r\n", EXPECT), b"hello", interim=None),
    Case("asked for", call(EXPECT, "Content-Length: 5"), (), True, interim=1),
    Case("asked for, chunked", call(EXPECT, "Transfer-Encoding: chunked"), (), True, interim=1),
    passes("twice the same", call(EXPECT, EXPECT, "Content-Length: 5", body=b"hello"), b"hello", interim=None),
    passes("without a body", call(EXPECT)),
    passes("with a body of no bytes", call(EXPECT, "Content-Length: 0")),
    passes("GET", get(EXPECT), method="GET"),
    passes("HTTP/1.0", call(EXPECT, "Content-Length: 5", version="1.0", body=b"hello"), b"hello", kept=False),
    refuses("something else", call("Expect: tea", "Content-Length: 5", body=b"hello"), 417),
    refuses("something else too", call("Expect: 100-continue, tea", "Content-Length: 5"), 417),
    refuses("something else, then the known", call("Expect: tea", EXPECT, "Content-Length: 5"), 417),
    refuses("something else without a body", get("Expect: tea"), 417, kept=True),
    refuses("refused instead of asked for", call(EXPECT, "Content-Length: 5", key=""), 401),
    refuses("refused and sent all the same", call(EXPECT, "Content-Length: 5", key="", body=b"hello"), 401),
    refuses("nothing there", call(EXPECT, "Content-Length: 5", path="/nowhere"), 404),
    Case(
        "behind another request",
        get() + call(EXPECT, "Content-Length: 5", body=b"hello") + get(),
        (200, 200, 200),
        True,
        (Sent(method="GET"), Sent(b"hello"), Sent(method="GET")),
        interim=None,
    ),
]
