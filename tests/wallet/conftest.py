"""The control process that some of these tests speak to."""

from office import control

__all__ = ["control"]
