"""Haat: a marketplace for language-AI services that anyone can host."""

__version__ = "0.1.0"
