"""What peers run that isn't theirs. Nothing here is imported by us: each runs in its peer's environment."""
