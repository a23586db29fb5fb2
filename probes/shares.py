"""What interventions did, as shares of clean − corrupt: means over items, intervals, p, and contrasts with controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.causal.questions import Question
from interp.stats import bootstrap_interval, item_means, sign_flip
from probes.interventions import Setting
from probes.steering import Cell, Measured
from probes.verdict import name_of

__all__ = ["share_tables"]

_HIGHER_IS_RIGHT = ("logit_diff", "logit", "prob", "log_prob", "log_prob_diff")


def share_tables(
    question: Question, s: Setting, cells: Sequence[Cell], measured: Measured, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Rows with statistics over items, contrasts with the controls, effects by item, and clean − corrupt."""
    names = np.array(question.items)
    gaps = item_means((measured.base - measured.source)[:, None], names)
    moved = item_means(measured.base[:, None] - measured.patched, names)
    gap = _gap(gaps, question, measured, seed)
    rows = _grouped(cells)
    by_row = np.stack([moved[:, members].mean(axis=1) for members in rows.values()], axis=1)
    divisor = gaps.mean() if gaps.mean() != 0 else np.nan
    sign = 1.0 if not gaps.mean() < 0 else -1.0
    low, high = _interval(by_row, gaps, seed)
    p = sign_flip(sign * by_row, side="greater", seed=seed)[0] if len(by_row) > 1 else np.full(by_row.shape[1], np.nan)
    lines = []
    for i, members in enumerate(rows.values()):
        cell, singles = cells[members[0]], moved[:, members].mean(axis=0) / divisor
        is_random = cell.control == "random directions"
        decides = not cell.control and (cell.intervention == "swap" or cell.dose == s.decisive)
        line = {"intervention": cell.intervention, "dose": cell.dose, "control": cell.control}
        line |= {"place": str(cell.place), "position": cell.position, "effect": by_row[:, i].mean() / divisor}
        line |= {"low": low[i], "high": high[i], "moved": by_row[:, i].mean(), "p": p[i], "p_corrected": np.nan}
        line |= {"n": len(by_row), "n_draws": len(members), "decides": decides}
        line |= {"least": singles.min() if is_random else np.nan, "most": singles.max() if is_random else np.nan}
        lines.append(line)
    frame = pd.DataFrame(lines)
    decide = np.flatnonzero(frame["decides"].to_numpy())
    if len(by_row) > 1:
        frame.loc[decide, "p_corrected"] = sign_flip(sign * by_row[:, decide], side="greater", seed=seed)[1]
    contrasts = _contrasts(frame, by_row, gaps, seed)
    items = pd.DataFrame(
        [
            {
                **frame.loc[i, ["intervention", "dose", "control", "place", "position"]].to_dict(),
                "item": item,
                "moved": value,
            }
            for i in range(by_row.shape[1])
            for item, value in zip(np.unique(names).tolist(), by_row[:, i].tolist(), strict=True)
        ]
    )
    return frame, contrasts, items, gap


def _contrasts(frame: pd.DataFrame, by_row: NDArray, gaps: NDArray, seed: int) -> pd.DataFrame:
    """Each deciding measure minus its random directions and minus the wrong position, as shares."""
    lines = []
    for i in np.flatnonzero(frame["decides"].to_numpy()):
        own = frame.loc[i]
        same = (frame["intervention"] == own["intervention"]) & (
            frame["dose"].isna() if np.isnan(own["dose"]) else frame["dose"] == own["dose"]
        )
        for control in ("random directions", "wrong position"):
            for j in np.flatnonzero((same & (frame["control"] == control)).to_numpy()):
                difference = (by_row[:, i] - by_row[:, j])[:, None]
                low, high = _interval(difference, gaps, seed)
                value = float(difference.mean() / gaps.mean()) if gaps.mean() else float("nan")
                line = {"measure": name_of(own.to_dict()), "against": control, "difference": value}
                lines.append({**line, "low": low[0], "high": high[0], "most": frame.loc[j, "most"]})
    return pd.DataFrame(lines, columns=["measure", "against", "difference", "low", "high", "most"])


def _interval(values: NDArray, gaps: NDArray, seed: int) -> tuple[NDArray, NDArray]:
    if len(values) < 2 or not gaps.mean():
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    return bootstrap_interval(values, seed=seed, divisor=np.broadcast_to(gaps, values.shape))


def _gap(gaps: NDArray, question: Question, measured: Measured, seed: int) -> dict[str, Any]:
    """clean − corrupt, and whether the behaviour is there: for metrics of the right answer it has to be above 0."""
    low, high = bootstrap_interval(gaps, seed=seed) if len(gaps) > 1 else (np.array([np.nan]), np.array([np.nan]))
    there = bool(low[0] > 0) or (bool(high[0] < 0) and question.metric.name not in _HIGHER_IS_RIGHT)
    ends = {"value": float(gaps.mean()), "low": float(low[0]), "high": float(high[0])}
    means = {"clean": float(measured.base.mean()), "corrupt": float(measured.source.mean())}
    return {**ends, **means, "there": there, "n_items": len(gaps), "n_prompts": len(measured.base)}


def _grouped(cells: Sequence[Cell]) -> dict[tuple, list[int]]:
    """The cells of each row: draws of one control are one row."""
    rows: dict[tuple, list[int]] = {}
    for number, cell in enumerate(cells):
        dose = "" if np.isnan(cell.dose) else cell.dose
        rows.setdefault((cell.intervention, dose, cell.control, str(cell.place), cell.position), []).append(number)
    return rows
