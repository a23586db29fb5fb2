"""Where jobs run: one file for each way, all with one small protocol."""

from interp.batch.executors.base import Event, Executor, executor, names

__all__ = ["Event", "Executor", "executor", "names"]
