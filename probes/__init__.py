"""Probes: what a representation holds, and whether the model uses it. Built on interp, never imported by it."""

from __future__ import annotations
