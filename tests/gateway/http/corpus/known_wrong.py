"""What the gateway does wrong so far, by reason: these cases must fail until they are mended."""

_REASONS = {
    "TRACE and other methods of no use here are forwarded (RFC 9110, 9.3.8)": [
        "request line: TRACE",
        "request line: a method of other protocols",
        "pipelines: TRACE in the middle",
    ],
    "CONNECT is answered 400 instead of 501 (RFC 9110, 9.1)": [
        "request line: CONNECT",
        "smuggling: CONNECT with a body",
    ],
    "versions that aren't spoken are answered 400 instead of 505 (RFC 9110, 15.6.6)": [
        "request line: HTTP/2.0 in letters",
        "request line: HTTP/0.9 in letters",
        "request line: HTTP/1.2",
        "request line: HTTP/3.0",
        "connection: an offer of HTTP/2",
        "connection: an offer of HTTP/2 with a body",
        "connection: an offer of HTTP/2 with chunks",
        "connection: a request behind an offer of HTTP/2",
        "connection: an upgrade of HTTP/1.0",
    ],
    "the authority of absolute-form isn't looked at (RFC 9110, 4.2.4), its query is taken for a path": [
        "request line: absolute-form with a query and no path",
        "request line: absolute-form with a user",
        "request line: absolute-form with a bad port",
    ],
    "OPTIONS * is refused (RFC 9110, 9.3.7)": [
        "request line: asterisk-form with OPTIONS",
    ],
    "a Host with an invalid value is taken (RFC 9112, 3.2)": [
        "host: a Host with a user",
        "host: a Host with a path",
        "host: a Host with a query",
        "host: a Host with a scheme",
        "host: a Host with a space",
        "host: a list of Hosts",
        "host: a Host with a bad port",
        "host: a Host with a backslash",
        "host: a Host beyond ASCII",
        "limits: a Host that is too long",
    ],
    "a Host with an invalid value is taken": [
        "host: an open IPv6 address",
    ],
    "an unknown coding is answered 400 instead of 501 (RFC 9112, 6.1)": [
        "transfer encoding: gzip and chunked",
        "transfer encoding: gzip and chunked in two fields",
        "transfer encoding: identity and chunked",
        "smuggling: TE.TE with a misspelt first",
    ],
    "what is beside the chunks isn't limited (RFC 9112, 7.1.1)": [
        "chunks: a huge extension",
        "chunks: many long extensions",
        "chunks: huge trailers",
        "chunks: very many trailers",
    ],
    "a long target is taken or answered 431 (RFC 9110, 15.5.15)": [
        "limits: a target one byte longer",
        "limits: a long query",
        "limits: a target longer than a whole head",
        "limits: a target that never ends",
    ],
    "the size of a head is counted by the pieces it comes in, without some fields": [
        "limits: too many fields",
        "limits: too many empty fields",
        "limits: a field that is too long",
        "limits: a name that is too long",
        "limits: a field of the gateway's own that is too long",
        "limits: a key that is too long",
        "pipelines: too large a head in the middle",
        "cut: limits: a target longer than a whole head",
        "cut: limits: a field that is too long",
        "cut: limits: a name that is too long",
        "cut: limits: a field of the gateway's own that is too long",
        "cut: limits: a key that is too long",
        "cut: limits: a Host that is too long",
        "cut: limits: a request behind a large body",
        "cut: limits: fields that are too long together with those of the request before",
        "cut: pipelines: a thousand that are refused",
        "cut: pipelines: too large a head in the middle",
    ],
    "100 Continue without a body to continue with (RFC 9110, 10.1.1)": [
        "expect: without a body",
        "expect: with a body of no bytes",
        "expect: GET",
    ],
    "an unknown expectation is ignored (RFC 9110, 15.5.18)": [
        "expect: something else",
        "expect: something else too",
        "expect: something else, then the known",
        "expect: something else without a body",
    ],
    "a field that Connection names is taken for close": [
        "connection: a name that begins like close",
    ],
    "a health answer ends the connection over a small body": [
        "connection: health with a body",
        "smuggling: health's body is not a request",
    ],
    "a percent sign without two digits is taken (RFC 3986, 2.1)": [
        "paths: half an encoding",
        "paths: an encoding that is none",
    ],
    "offers to change the protocol are refused, which a server may ignore (RFC 9110, 7.8)": [
        "smuggling: an upgrade's body is not a request",
    ],
    "a refused chunked body is read or not, depending on the pieces": [
        "cut: pipelines: a refused chunked body in the middle",
    ],
}
KNOWN_WRONG = {name: reason for reason, names in _REASONS.items() for name in names}
