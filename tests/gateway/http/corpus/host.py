"""The Host field: exactly one, and a valid one (RFC 9112, 3.2; RFC 9110, 7.2)."""

from gateway.http.case import AUTH, PATH, Case, head, passes, refuses

LINE = f"GET {PATH} HTTP/1.1"


def with_host(*fields: str, line: str = LINE) -> bytes:
    return head(line, *fields, AUTH)


CASES: list[Case] = [
    passes("a name", with_host("Host: gateway"), method="GET", has={"host": "PROVIDER"}),
    passes("a name and a port", with_host("Host: gateway:8080"), method="GET", has={"host": "PROVIDER"}),
    passes("a name and an empty port", with_host("Host: gateway:"), method="GET"),
    passes("an IPv4 address", with_host("Host: 127.0.0.1"), method="GET"),
    passes("an IPv6 address", with_host("Host: [2001:db8::1]:80"), method="GET"),
    passes("an encoded name", with_host("Host: caf%C3%A9.example"), method="GET"),
    passes("a name with an underscore", with_host("Host: my_gateway"), method="GET"),
    passes("Host at the end", head(LINE, AUTH, "Host: gateway"), method="GET"),
    refuses("no Host", with_host(), kept=True),
    refuses("no Host with absolute-form", with_host(line=f"GET http://gateway{PATH} HTTP/1.1"), kept=True),
    refuses("two Hosts", with_host("Host: a", "Host: b"), kept=True),
    refuses("the same Host twice", with_host("Host: a", "Host: a"), kept=True),
    refuses("two Hosts of HTTP/1.0", with_host("Host: a", "Host: b", line=f"GET {PATH} HTTP/1.0")),
    refuses("an empty Host", with_host("Host:"), kept=True),
    refuses("a Host of spaces", with_host("Host:   "), kept=True),
    refuses("a Host with a user", with_host("Host: user@gateway"), kept=True),
    refuses("a Host with a path", with_host("Host: gateway/x"), kept=True),
    refuses("a Host with a query", with_host("Host: gateway?x"), kept=True),
    refuses("a Host with a scheme", with_host("Host: http://gateway"), kept=True),
    refuses("a Host with a space", with_host("Host: gate way"), kept=True),
    refuses("a list of Hosts", with_host("Host: a, b"), kept=True),
    refuses("a Host with a bad port", with_host("Host: gateway:http"), kept=True),
    refuses("a Host with a backslash", with_host("Host: gateway\\x"), kept=True),
    refuses("a Host beyond ASCII", with_host("Host: caf\xe9"), kept=True),
    refuses("an open IPv6 address", with_host("Host: [::1"), kept=True),
]
