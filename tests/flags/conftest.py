"""The control process these tests speak to."""

from office import control

__all__ = ["control"]
