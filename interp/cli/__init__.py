"""The command line: a few lines over the public API for each command."""

from __future__ import annotations

from interp.cli.commands import app, main

__all__ = ["app", "main"]
