"""Raw requests by theme. Every case runs whole, cut at every byte, in random rows and under the fuzzer."""

from gateway.http.case import Case
from gateway.http.corpus import (
    chunks,
    connection,
    content_length,
    expect,
    fields,
    host,
    keys,
    limits,
    paths,
    patience,
    pipelines,
    request_line,
    smuggling,
    transfer_encoding,
)

THEMES = (
    request_line,
    fields,
    host,
    content_length,
    transfer_encoding,
    chunks,
    limits,
    expect,
    connection,
    pipelines,
    paths,
    keys,
    smuggling,
    patience,
)


def _named(theme: str, cases: list[Case]) -> list[Case]:
    return [case._replace(name=f"{theme}: {case.name}") for case in cases]


CASES: list[Case] = [
    case for theme in THEMES for case in _named(theme.__name__.rpartition(".")[2].replace("_", " "), theme.CASES)
]
