"""The local engine: models in worker processes on this machine."""

from haat.models.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
