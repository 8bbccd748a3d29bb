"""Content-Length (RFC 9110, 8.6): one number in decimal digits, and nothing beside it."""

from gateway.http.case import Case, call, chunked, passes, refuses


def of(length: str, body: bytes = b"hello") -> bytes:
    return call(f"Content-Length: {length}", body=body)


CASES: list[Case] = [
    passes("a length", of("5"), b"hello", has={"content-length": "5"}),
    passes("zero", of("0", b""), has={"content-length": "0"}),
    passes("leading zeros", of("0005"), b"hello", has={"content-length": "5"}),
    passes("very many leading zeros", of("0" * 40 + "5"), b"hello", has={"content-length": "5"}),
    passes("space around a length", of(" \t5 \t"), b"hello"),
    passes("a body that looks like a request", of("18", b"GET / HTTP/1.1\r\n\r\n"), b"GET / HTTP/1.1\r\n\r\n"),
    passes("a body of zero bytes", of("5", bytes(5)), bytes(5)),
    refuses("two lengths that differ", call("Content-Length: 5", "Content-Length: 6", body=b"hello")),
    refuses("two lengths that are equal", call("Content-Length: 5", "Content-Length: 5", body=b"hello")),
    refuses("two lengths with others between", call("Content-Length: 5", "X: y", "content-length: 5", body=b"hello")),
    refuses("a list of equal lengths", of("5, 5")),
    refuses("a list of different lengths", of("5, 6")),
    refuses("a list with an empty member", of("5,")),
    refuses("a plus sign", of("+5")),
    refuses("a minus sign", of("-5")),
    refuses("minus zero", of("-0", b"")),
    refuses("hexadecimal", of("0x5")),
    refuses("hexadecimal digits", of("a", b"0123456789")),
    refuses("octal", of("0o5")),
    refuses("an exponent", of("5e0")),
    refuses("a decimal point", of("5.0")),
    refuses("an underscore", of("1_0", b"0123456789")),
    refuses("a space between digits", of("1 0", b"0123456789")),
    refuses("in quotes", of('"5"')),
    refuses("digits of another script", of("\u0665".encode().decode("latin-1"))),
    refuses("no digits", of("")),
    refuses("a semicolon", of("5; x=y")),
    refuses("one beyond 64 bits", of("18446744073709551616")),
    refuses("one that wraps to 5 in 64 bits", of("18446744073709551621")),
    refuses("one that wraps to 5 in 32 bits", of("4294967301"), 413),
    refuses("the greatest in 64 bits", of("18446744073709551615"), 413),
    refuses("the greatest with a sign in 64 bits", of("9223372036854775807"), 413),
    refuses("very many digits", of("9" * 400)),
    refuses("a space before the colon", call("Content-Length : 5", body=b"hello")),
    refuses("a length before chunked", call("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    refuses("a length after chunked", chunked(b"0\r\n\r\n", "Content-Length: 5")),
    refuses("length zero with chunked", chunked(b"0\r\n\r\n", "Content-Length: 0")),
    refuses("a length with an unknown coding", call("Content-Length: 5", "Transfer-Encoding: identity", body=b"hello")),
    Case("a body that never comes whole", of("10"), (), True),
]
