"""What of the target reaches the provider: byte by byte, and never out of its own path."""

from gateway.http.case import PATH, TARGET, Case, get, passes, refuses


def goes(name: str, tail: str, target: str = "") -> Case:
    return passes(name, get(path=PATH + tail), method="GET", target=target or TARGET + tail)


def stays(name: str, tail: str) -> Case:
    return refuses(name, get(path=PATH + tail), kept=True)


CASES: list[Case] = [
    goes("a query", "?a=1&b=%20%E0%A4%B9"),
    goes("an empty query", "?"),
    goes("half an encoding in the query", "?a=%"),
    goes("question marks in the query", "?a=?b"),
    goes("an encoded slash", "/a%2Fb"),
    goes("an encoded letter", "/%61"),
    goes("an encoded percent sign", "/%25"),
    goes("an encoded question mark", "/a%3Fb"),
    goes("two slashes", "//a"),
    goes("a slash at the end", "/"),
    goes("dots that are no segment", "/v1.2/...x/.y"),
    goes("three dots", "/..."),
    goes("dots in the query", "?next=/../x"),
    goes("a semicolon", "/a;b=c"),
    goes("every mark a path may have", "/-._~!$&'()*+,;=:@"),
    passes("no tail", get(path="/v1/services/acme/echo"), method="GET", target="/base"),
    passes("a slash as the tail", get(path="/v1/services/acme/echo/"), method="GET", target="/base/"),
    passes("a query without a tail", get(path="/v1/services/acme/echo?a=1"), method="GET", target="/base?a=1"),
    passes("a named version", get(path="/v1/services/acme/echo@2/x"), method="GET", target="/two/x"),
    stays("a dot segment", "/../../admin"),
    stays("a dot segment at the end", "/.."),
    stays("a single dot", "/./x"),
    stays("encoded dots", "/%2e%2e/admin"),
    stays("one encoded dot", "/.%2E/admin"),
    stays("dots behind an encoded slash", "/x%2f..%2fadmin"),
    stays("dots behind an encoded backslash", "/x%5c..%5cadmin"),
    stays("dots behind a NUL", "/x%00../admin"),
    stays("dots with a parameter", "/..;a=b/admin"),
    stays("a backslash", "/..\\admin"),
    stays("a fragment", "#x"),
    stays("half an encoding", "/a%2"),
    stays("an encoding that is none", "/a%zz"),
    refuses("a byte beyond ASCII", get(path=PATH + "/\xe9")),
    refuses("a NUL", get(path=PATH + "/\x00")),
    refuses("a control character", get(path=PATH + "/\x01")),
    refuses("DEL", get(path=PATH + "/\x7f")),
    refuses("a space", get(path=PATH + "/a b")),
    refuses("a dot segment before the service", get(path="/v1/services/../admin"), 404, kept=True),
    refuses("another prefix", get(path="/V1/services/acme/echo/x"), 404, kept=True),
    refuses("an encoded prefix", get(path="/v1/%73ervices/acme/echo/x"), 404, kept=True),
    refuses("a slash too many", get(path="/v1//services/acme/echo/x"), 404, kept=True),
    refuses("no service", get(path="/v1/services/acme"), 404, kept=True),
    refuses("no provider", get(path="/v1/services//echo"), 404, kept=True),
    refuses("an unknown service", get(path="/v1/services/acme/nothing/x"), 404, kept=True),
    refuses("an unknown version", get(path="/v1/services/acme/echo@9/x"), 404, kept=True),
]
