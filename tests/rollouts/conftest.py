"""The market these tests work on."""

from market import market

__all__ = ["market"]
