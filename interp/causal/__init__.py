"""Interventions: exact patching sweeps, ablations, knockouts, tracing, paths, and their first-order approximation."""

from __future__ import annotations

__all__: list[str] = []
