"""The control process: control API under ``/api/v1`` and the portal, on FastAPI."""

from haat.control.process import run

__all__ = ["run"]
