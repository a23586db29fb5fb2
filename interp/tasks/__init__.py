"""Inputs whose answer or structure is known, one file per task: `interp.tasks.load(name, model)`."""

from interp.tasks.base import Task
from interp.tasks.load import from_csv, load, names

# Imported here and not on use: the module `load` would otherwise take the place of the function when it is imported.
__all__ = ["Task", "from_csv", "load", "names"]
