"""At which steps checkpoints are kept: dense where models change fast, on a log scale."""

from __future__ import annotations

from interp.errors import InputError

__all__ = ["log_schedule"]


def log_schedule(steps: int, *, per_octave: int = 4) -> tuple[int, ...]:
    """0, then every 2^(k / per_octave), rounded, up to `steps`, which is always among them."""
    if min(steps, per_octave) < 1:
        raise InputError(
            f"A schedule of {steps} steps with {per_octave} checkpoints an octave is empty. Give 1 or more."
        )
    found, k = {0, steps}, 0
    while (at := round(2 ** (k / per_octave))) < steps:
        found.add(at)
        k += 1
    return tuple(sorted(found))
