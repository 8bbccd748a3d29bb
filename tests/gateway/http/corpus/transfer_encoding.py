"""Transfer-Encoding (RFC 9112, 6.1 and 6.3): chunked and nothing else, once."""

from gateway.http.case import Case, Sent, call, chunked, get, passes, refuses

EMPTY = b"0\r\n\r\n"
HI = b"2\r\nhi\r\n0\r\n\r\n"


def coded(*values: str, version: str = "1.1", body: bytes = EMPTY) -> bytes:
    return call(*(f"Transfer-Encoding: {value}" for value in values), version=version, body=body)


CASES: list[Case] = [
    passes("chunked", chunked(HI), b"hi", lacks=("transfer-encoding",)),
    passes("chunked in capitals", coded("CHUNKED", body=HI), b"hi"),
    passes("chunked in mixed letters", coded("ChUnKeD", body=HI), b"hi"),
    passes("space around chunked", coded("  chunked  ", body=HI), b"hi"),
    refuses("tabs around chunked", coded("\tchunked\t", body=HI)),
    passes("an empty chunked body", chunked(EMPTY)),
    passes("a chunked GET", call("Transfer-Encoding: chunked", method="GET", body=HI), b"hi", method="GET"),
    Case(
        "another request behind a chunked one", chunked(HI) + get(), (200, 200), True, (Sent(b"hi"), Sent(method="GET"))
    ),
    # A coding that we don't know before chunked: 501 (RFC 9112, 6.1).
    refuses("gzip and chunked", coded("gzip, chunked"), 501),
    refuses("gzip and chunked in two fields", coded("gzip", "chunked"), 501),
    refuses("identity and chunked", coded("identity, chunked"), 501),
    refuses("chunked with a parameter", coded("chunked;q=1")),
    # A body that no rule ends, or two rules do: 400 (RFC 9112, 6.3).
    refuses("chunked twice", coded("chunked, chunked")),
    refuses("chunked twice in two fields", coded("chunked", "chunked")),
    refuses("chunked and gzip", coded("chunked, gzip")),
    refuses("chunked and identity", coded("chunked, identity")),
    refuses("chunked and identity in two fields", coded("chunked", "identity")),
    refuses("identity alone", coded("identity")),
    refuses("gzip alone", coded("gzip")),
    refuses("xchunked", coded("xchunked")),
    refuses("chunkedx", coded("chunkedx")),
    refuses("chunked and a comma", coded("chunked,")),
    refuses("a comma and chunked", coded(",chunked")),
    refuses("chunked, space, comma", coded("chunked ,")),
    refuses("chunked in quotes", coded('"chunked"')),
    refuses("no coding", coded("")),
    refuses("no coding and a length", call("Transfer-Encoding:", "Content-Length: 5", body=EMPTY)),
    refuses("a vertical tab before chunked", coded("\x0bchunked")),
    refuses("a NUL after chunked", coded("chunked\x00")),
    refuses("a byte beyond ASCII after chunked", coded("chunked\xa0")),
    refuses("chunked of HTTP/1.0", coded("chunked", version="1.0")),
    refuses(
        "chunked of HTTP/1.0 that asks to stay",
        call("Transfer-Encoding: chunked", "Connection: keep-alive", version="1.0", body=EMPTY),
    ),
    refuses(
        "chunked and a length of HTTP/1.0",
        call("Transfer-Encoding: chunked", "Content-Length: 5", version="1.0", body=EMPTY),
    ),
    refuses("a space before the colon", call("Transfer-Encoding : chunked", body=EMPTY)),
    refuses("a space within the name", call("Transfer -Encoding: chunked", "Content-Length: 5", body=EMPTY)),
    refuses("a control character in the name", call("Transfer\x0bEncoding: chunked", "Content-Length: 5", body=EMPTY)),
    passes(
        "an underscore in the name",
        call("Transfer_Encoding: chunked", "Content-Length: 5", body=EMPTY),
        EMPTY,
        has={"content-length": "5"},
    ),
]
