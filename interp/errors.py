"""The errors a user can meet. Each message says what was asked, what was found, and what to do instead."""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "HookError",
    "InputError",
    "InterpError",
    "StorageError",
    "TrainingError",
    "UnknownModelError",
    "UnknownSiteError",
    "UnsupportedModelError",
]


class InterpError(Exception):
    """Base of every error that `interp` raises for something a user can mend."""


class InputError(InterpError, ValueError):
    """Text, tokens, masks or arguments that the call cannot take."""


class UnknownSiteError(InterpError, KeyError):
    """An address that this model or this cache does not have."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0]) if self.args else ""


class HookError(InterpError, RuntimeError):
    """A hook that never fired, or that returned what the forward pass cannot use."""


class UnknownModelError(InterpError, LookupError):
    """A model name that leads to no checkpoint on this machine."""


class CheckpointError(InterpError, ValueError):
    """A checkpoint file that is damaged, incomplete or of another format."""


class UnsupportedModelError(InterpError, NotImplementedError):
    """A sound checkpoint whose mathematics this version does not implement."""


class StorageError(InterpError, OSError):
    """A file that could not be written or read: full disk, missing rights, a folder in the way."""


class TrainingError(InterpError, ArithmeticError):
    """A training whose loss or gradients are no longer finite numbers."""
