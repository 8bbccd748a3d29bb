"""Chunks, their extensions, and trailers (RFC 9112, 7.1)."""

from gateway.http.case import Case, Sent, chunked, get, passes, refuses

LAST = b"0\r\n\r\n"
CASES: list[Case] = [
    passes("several chunks", chunked(b"3\r\nhel\r\n2\r\nlo\r\n" + LAST), b"hello"),
    passes("a size in capitals", chunked(b"A\r\n0123456789\r\n" + LAST), b"0123456789"),
    passes("a size in small letters", chunked(b"a\r\n0123456789\r\n" + LAST), b"0123456789"),
    passes("leading zeros", chunked(b"0005\r\nhello\r\n" + LAST), b"hello"),
    passes("many zeros at the end", chunked(b"5\r\nhello\r\n0000\r\n\r\n"), b"hello"),
    passes("line ends within a chunk", chunked(b"4\r\n\r\n\r\n\r\n" + LAST), b"\r\n\r\n"),
    passes("a chunk that looks like the last", chunked(b"5\r\n0\r\n\r\n\r\n" + LAST), LAST),
    passes("an extension", chunked(b"5;a\r\nhello\r\n" + LAST), b"hello"),
    passes("an extension with a value", chunked(b"5;a=b;c=d\r\nhello\r\n" + LAST), b"hello"),
    passes("an extension in quotes", chunked(b'5;a="b c"\r\nhello\r\n' + LAST), b"hello"),
    passes("an extension of the last chunk", chunked(b"5\r\nhello\r\n0;a=b\r\n\r\n"), b"hello"),
    passes("a long extension", chunked(b"5;a=" + b"b" * 1000 + b"\r\nhello\r\n" + LAST), b"hello"),
    passes("a huge extension", chunked(b"5;a=" + b"b" * 40_000 + b"\r\nhello\r\n" + LAST), b"hello"),
    passes("many long extensions", chunked((b"1;" + b"b" * 1000 + b"\r\nx\r\n") * 40 + LAST), b"x" * 40),
    passes("very small chunks", chunked(b"1\r\nx\r\n" * 3000 + LAST), b"x" * 3000),
    refuses("a LF in an extension", chunked(b"5;a\nhello\r\n" + LAST)),
    refuses("a CR in an extension", chunked(b"5;a\rb\r\nhello\r\n" + LAST)),
    refuses("a NUL in an extension", chunked(b"5;a\x00\r\nhello\r\n" + LAST)),
    refuses("a line end within quotes", chunked(b'5;a="\r\nhello\r\n' + LAST)),
    refuses(
        "an extension with a LF and a smuggled chunk", chunked(b"2;\nxx\r\n30\r\n" + LAST + b"GET /admin HTTP/1.1\r\n")
    ),
    refuses("no size", chunked(b"\r\nhello\r\n" + LAST)),
    refuses("an extension without a size", chunked(b";a=b\r\nhello\r\n" + LAST)),
    refuses("a size that is no number", chunked(b"five\r\nhello\r\n" + LAST)),
    refuses("a size with a letter too far", chunked(b"g\r\nhello\r\n" + LAST)),
    refuses("a size with 0x", chunked(b"0x5\r\nhello\r\n" + LAST)),
    refuses("a size with an underscore", chunked(b"1_0\r\n0123456789abcdef\r\n" + LAST)),
    refuses("a negative size", chunked(b"-5\r\nhello\r\n" + LAST)),
    refuses("a size with a plus sign", chunked(b"+5\r\nhello\r\n" + LAST)),
    refuses("a size with a point", chunked(b"5.0\r\nhello\r\n" + LAST)),
    refuses("a space before the size", chunked(b" 5\r\nhello\r\n" + LAST)),
    refuses("a space after the size", chunked(b"5 \r\nhello\r\n" + LAST)),
    refuses("a tab after the size", chunked(b"5\t\r\nhello\r\n" + LAST)),
    refuses("a size beyond 64 bits", chunked(b"10000000000000005\r\nhello\r\n" + LAST)),
    refuses("a size with very many digits", chunked(b"f" * 300 + b"\r\nhello\r\n" + LAST)),
    Case("a size of nearly 64 bits", chunked(b"fffffffffffffffe\r\n"), (), True),
    refuses("a size that ends with LF alone", chunked(b"5\nhello\r\n" + LAST)),
    refuses("a size that ends with CR alone", chunked(b"5\rhello\r\n" + LAST)),
    refuses("no line end behind a chunk", chunked(b"5\r\nhello" + LAST)),
    refuses("LF alone behind a chunk", chunked(b"5\r\nhello\n" + LAST)),
    refuses("CR alone behind a chunk", chunked(b"5\r\nhello\r" + LAST)),
    refuses("two other bytes behind a chunk", chunked(b"5\r\nhelloXX" + LAST)),
    refuses("a chunk longer than it says", chunked(b"4\r\nhello\r\n" + LAST)),
    refuses("a chunk shorter than it says", chunked(b"6\r\nhello\r\n" + LAST)),
    refuses("LF alone behind the last chunk", chunked(b"5\r\nhello\r\n0\n\n")),
    Case("chunks that never end", chunked(b"5\r\nhello\r\n"), (), True),
    Case("a last chunk without its end", chunked(b"5\r\nhello\r\n0\r\n"), (), True),
    # trailers are dropped (RFC 9110, 6.5.1)
    passes("a trailer", chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "Trailer: X-Sum"), b"hello", lacks=("x-sum",)),
    passes(
        "trailers that would be ours", chunked(b"0\r\nAuthorization: Bearer x\r\nX-API-Key: x\r\nHost: evil\r\n\r\n")
    ),
    passes(
        "a trailer that names the connection", chunked(b"0\r\nX-Haat-User: mallory\r\n\r\n"), lacks=("x-haat-user",)
    ),
    Case(
        "a request behind trailers",
        chunked(b"0\r\nX-Sum: 1\r\n\r\n") + get(),
        (200, 200),
        True,
        (Sent(lacks=("x-sum",)), Sent(method="GET", lacks=("x-sum",))),
    ),
    refuses("a length among the trailers", chunked(b"0\r\nContent-Length: 5\r\n\r\n")),
    refuses("chunked among the trailers", chunked(b"0\r\nTransfer-Encoding: chunked\r\n\r\n")),
    refuses("a folded trailer", chunked(b"0\r\nX-Sum: 1\r\n 2\r\n\r\n")),
    refuses("a trailer without a colon", chunked(b"0\r\nX-Sum\r\n\r\n")),
    refuses("a NUL in a trailer", chunked(b"0\r\nX-Sum: \x00\r\n\r\n")),
    refuses("a trailer that ends with LF alone", chunked(b"0\r\nX-Sum: 1\n\r\n")),
    passes("huge trailers", chunked(b"0\r\nX-Sum: " + b"1" * 40_000 + b"\r\n\r\n")),
    passes("very many trailers", chunked(b"0\r\n" + b"X: y\r\n" * 8000 + b"\r\n")),
]
