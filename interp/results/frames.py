"""Results that are tables: saved as a folder of Parquet files with one JSON of how they were made."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import StorageError
from interp.figures.tables import table_html
from interp.files import atomic_folder, read_json, write_json

__all__ = ["about_html", "as_records", "load_frames", "save_frames"]


def save_frames(
    path: str | os.PathLike[str], kind: str, version: int, about: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]
) -> Path:
    """Write `about.json` and one Parquet file for each table, all or nothing."""
    with atomic_folder(path, marker="about.json") as folder:
        for name, frame in frames.items():
            frame.to_parquet(folder / f"{name}.parquet")
        write_json(folder / "about.json", {"kind": kind, "format": version, "about": _finite(about)})
    return Path(path)


def load_frames(
    path: str | os.PathLike[str], kind: str, version: int, names: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Read what `save_frames` wrote; raises `StorageError` for a damaged or newer folder, or one of another kind."""
    folder = Path(path)
    saved = read_json(folder / "about.json")
    good = isinstance(saved, dict) and isinstance(saved.get("about"), dict)
    if not good or saved.get("kind") != kind or saved.get("format") != version:
        raise StorageError(f"{folder} holds no {kind} of format {version}. Make it again with this version.")
    try:
        return saved["about"], {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot read the tables in {folder}: {error}") from error


def as_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain data for JSON; what is NaN becomes null."""
    return json.loads(frame.to_json(orient="records") or "[]")


def about_html(title: str, notes: str, table: pd.DataFrame) -> str:
    """A static heading, table and note; everything is escaped."""
    return f"<h4>{escape(title)}</h4>{table_html(table)}<p>{escape(notes)}</p>"


def _finite(value: Any) -> Any:
    """NaN and infinities as null: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
