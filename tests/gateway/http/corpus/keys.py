"""Where a key may be, and what of our own vocabulary never reaches the provider."""

from gateway.http.case import AUTH, KEY, PATH, Case, call, passes, refuses

SECRETS = ("authorization", "x-api-key")


def unknown(name: str, *fields: str, path: str = PATH) -> Case:
    return refuses(name, call(*fields, key="", path=path), 401, kept=True)


CASES: list[Case] = [
    passes("a bearer", call(), lacks=SECRETS, has={"x-provider-key": "provider-secret"}),
    passes("the scheme in capitals", call(key=f"Authorization: BEARER {KEY}"), lacks=SECRETS),
    passes("space around the key", call(key=f"Authorization:   Bearer   {KEY}  "), lacks=SECRETS),
    passes("X-API-Key", call(key=f"X-API-Key: {KEY}"), lacks=SECRETS),
    passes("the same key in both", call(f"X-API-Key: {KEY}"), lacks=SECRETS),
    passes("the same key twice", call(AUTH), lacks=SECRETS),
    passes(
        "another scheme beside X-API-Key", call(f"X-API-Key: {KEY}", key="Authorization: Basic eDp5"), lacks=SECRETS
    ),
    passes("the provider's own credential", call("X-Provider-Key: mine"), has={"x-provider-key": "provider-secret"}),
    passes("the provider's own, in capitals", call("X-PROVIDER-KEY: mine"), has={"x-provider-key": "provider-secret"}),
    passes("whose call it is", call("X-Haat-User: u", "X-Haat-Tags: a=b"), lacks=("x-haat-user", "x-haat-tags")),
    refuses("two keys", call("X-API-Key: other"), kept=True),
    refuses("two keys in one field's name", call("Authorization: Bearer other"), kept=True),
    refuses("two keys of X-API-Key", call("X-API-Key: a", "X-API-Key: b", key=""), kept=True),
    unknown("no key"),
    unknown("an empty bearer", "Authorization: Bearer "),
    unknown("a scheme alone", "Authorization: Bearer"),
    unknown("an empty field", "Authorization:"),
    unknown("another scheme", "Authorization: Basic eDp5"),
    unknown("a key that isn't ours", "X-API-Key: sk-123"),
    unknown("a key beyond ASCII", "X-API-Key: \xff\xfe"),
    unknown("a mistyped key", "X-API-Key: haat_live_" + "0" * 28),
    unknown("two keys in a list", f"Authorization: Bearer {KEY}, {KEY}"),
    unknown("a key in the query", path=f"{PATH}?api_key={KEY}"),
    unknown("a key in the path", path=f"{PATH}/{KEY}"),
    unknown("a key for the proxy", f"Proxy-Authorization: Bearer {KEY}"),
    unknown("a key in a cookie", f"Cookie: Authorization={KEY}"),
]
