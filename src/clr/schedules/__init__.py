"""Schedules: what they are (`base`), what they are made of, and the functions that make them (`policies`)."""

from clr.schedules import compose, policies

__all__ = ["compose", "policies"]
