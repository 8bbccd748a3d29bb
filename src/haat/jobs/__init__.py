"""Callers' jobs: many calls handed in at once, made through the gateway, their answers kept until they are fetched."""
