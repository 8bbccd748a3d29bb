"""Calls of one service that are divided between versions, or copied to another one."""
