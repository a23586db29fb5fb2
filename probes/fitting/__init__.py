"""Many probes at once: sites, heads, labels, λ and folds from one reading of the rows."""

from __future__ import annotations
