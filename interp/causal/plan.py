"""A plan: what will be computed and what it costs, and running it with progress, interruption and resumption."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from interp.causal.sweep import Cost, Sweep, Values
from interp.results import Effects

__all__ = ["Plan", "Progress", "Report"]

Report = Callable[[int, int], None]
Progress = bool | Report | None


@dataclass
class Plan:
    """A sweep that has been checked and not yet run. `print(plan)` shows its cost; `run` computes it, and goes on
    where it was interrupted."""

    sweep: Sweep
    axes: Mapping[str, list[Any]]
    items: tuple[str, ...]
    templates: tuple[str, ...]
    about: Mapping[str, Any]
    progress: Progress = None
    draws: int = 1  # consecutive prompts of the sweep that are draws of one prompt, whose values are averaged

    @property
    def cost(self) -> Cost:
        """Cells, work, seconds and memory, estimated."""
        return self.sweep.cost()

    def __str__(self) -> str:
        cost, about = self.cost, self.about
        grid = " × ".join(f"{len(names)} {axis}" for axis, names in self.axes.items()) or "1 cell"
        return (
            f"{about.get('method', 'sweep')} of {about.get('site', '?')} on {len(self.items)} prompts: {grid}\n"
            f"cells        {cost.cells:,} to compute, {cost.skipped:,} known to be 0\n"
            f"token-layers {cost.token_layers:,}\n"
            f"seconds      about {cost.seconds:.2g}\n"
            f"peak memory  about {cost.peak_bytes / 1e6:,.0f} MB above the weights"
        )

    def run(self, progress: Progress = None) -> Effects:
        """The effects. `progress`: True or False, a function of (cells done, cells in all), or None: shown where
        there is a terminal.

        On an interruption the exception carries what was finished as `error.partial`, and this plan keeps it: `run`
        again goes on from there, `partial` gives it.
        """
        try:
            with _shown(
                self.progress if progress is None else progress, str(self.about.get("method", "cells"))
            ) as report:
                self.sweep.run(report)
        except BaseException as error:
            if self.sweep.values is not None:
                error.partial = self.partial  # type: ignore[attr-defined]
                error.add_note("What was finished is in the exception's .partial; a plan's .run() goes on from there.")
            raise
        assert self.sweep.values is not None
        return self._effects(self.sweep.values)

    @property
    def partial(self) -> Effects:
        """What is finished so far; cells that are not are NaN."""
        empty = np.full(len(self.sweep.base), np.nan)
        values = self.sweep.values or Values(empty, None, np.full(self.sweep.absent.shape, np.nan))
        return self._effects(values)

    def _effects(self, values: Values) -> Effects:
        base, patched = self._of_prompts(values.base), self._of_prompts(values.patched)
        dims = ("prompt", *self.axes)
        shape = [len(base), *(len(names) for names in self.axes.values())]
        effect = (patched - base[:, None]).reshape(shape)
        coordinates = {"prompt": np.arange(len(base)), **self.axes}
        return Effects(
            xr.DataArray(effect, coords=coordinates, dims=dims),
            items=self.items,
            templates=self.templates,
            base=base,
            source=None if values.source is None else self._of_prompts(values.source),
            about={**self.about, **({} if values.complete else {"partial": True})},
        )

    def _of_prompts(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Values of texts to values of prompts."""
        pairs = self.sweep.metric.combine(values)
        return pairs.reshape(-1, self.draws, *pairs.shape[1:]).mean(axis=1)


@contextmanager
def _shown(progress: Progress, what: str) -> Iterator[Report | None]:
    """The function to report to. On a terminal or in a notebook: a bar with cells per second and time left."""
    if callable(progress):
        yield progress
        return
    if progress is None:
        progress = sys.stderr.isatty()
    if not progress:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=None, rate="")

        def report(done: int, total: int) -> None:
            speed = bars.tasks[0].finished_speed or bars.tasks[0].speed
            rate = f"{speed:,.0f} cells/s" if speed else ""
            bars.update(task, completed=done, total=total, rate=rate)

        yield report
