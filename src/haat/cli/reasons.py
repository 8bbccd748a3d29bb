"""Errors as an operator should read them: one sentence that says what is wrong and what to do."""

from __future__ import annotations

import tomllib

import psycopg
import sqlalchemy.exc
from psycopg_pool import PoolTimeout
from pydantic import ValidationError

from haat.gateway.http.tls import UnusableCertificate
from haat.infra.embedded_host import EmbeddedPostgresError
from haat.infra.keyring import BadMasterKey
from haat.infra.migrate import UnknownRevision
from haat.kernel.errors import HaatError

_UNREACHABLE = "The database can't be reached: start the platform with `haat serve`, or correct HAAT_DATABASE_URL"


def sentence_of(error: BaseException) -> str | None:
    """Return the sentence for an error that has one, or None for a fault of ours."""
    match error:
        case BaseExceptionGroup() if len(error.exceptions) == 1:
            return sentence_of(error.exceptions[0])
        case ValidationError():
            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            return f"A setting is wrong ({wrong}): correct the HAAT_ variable or the line in the TOML file."
        case HaatError():
            return error.reason
        case tomllib.TOMLDecodeError():
            return f"The settings file is not TOML ({error}): correct the file that HAAT_CONFIG names, or haat.toml."
        case UnusableCertificate():
            return f"The gateway's certificate can't be used: {error}."
        case EmbeddedPostgresError() | UnknownRevision() | FileNotFoundError() | BadMasterKey():
            return str(error)
        case NotADirectoryError() | FileExistsError():
            return f"{error.filename} can't be made, a file is in its way: choose another --data-dir."
        case sqlalchemy.exc.OperationalError():
            return sentence_of(error.orig) if error.orig is not None else _UNREACHABLE
        case psycopg.errors.LockNotAvailable():
            return "A table stayed in use for too long and nothing was changed: try again when less is going on."
        case psycopg.errors.UndefinedTable():
            return "The database has no schema yet, or an old one: run `haat migrate`."
        case psycopg.OperationalError() | PoolTimeout():
            return f"{_UNREACHABLE} ({first_line(error)})."
        case PermissionError():
            return f"{error.filename} is closed to this account: start Haat as its owner, or choose another --data-dir."
        case _:
            return None


def first_line(error: BaseException) -> str:
    """Return what libpq says first: the rest of its lines are guesses and hints."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "no reason given"
