"""Which runs of a list are asked for: by kind, model, task, time and tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time

from interp.errors import InputError
from interp.runs.manifest import RunInfo

__all__ = ["Asked", "asked_time"]


@dataclass(frozen=True)
class Asked:
    """What a run must be; what is None does not count. `model` and `task` are parts of names, in any case."""

    kind: str | None = None
    model: str | None = None
    task: str | None = None
    since: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def fits(self, info: RunInfo) -> bool:
        """Whether a run is one of them."""
        return (
            self.kind in (None, info.kind)
            and _part(self.model, info.model)
            and _part(self.task, info.task)
            and (self.since is None or (info.created is not None and info.created >= self.since))
            and all(info.tags.get(name) == text for name, text in self.tags.items())
        )


def asked_time(value: str | date | datetime | None) -> datetime | None:
    """A time in UTC; a day is its beginning, and what names no zone is in UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InputError(f"{value!r} is no date. Give one as 2026-01-31 or 2026-01-31T12:00.") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if value is None or value.tzinfo is not None:
        return value
    return value.replace(tzinfo=UTC)


def _part(asked: str | None, found: str | None) -> bool:
    return asked is None or (found is not None and asked.lower() in found.lower())
