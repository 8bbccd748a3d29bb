"""Calls that are sent again: they are executed once, and what was answered is kept on disk."""
