"""A process that does jobs of a sweep as it is told: keys of jobs come on its standard input, one a line, and a line of
JSON goes back for each. `python -m interp.batch.worker FOLDER --threads N [--memory BYTES] --answers FD`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Work until the input ends. Ctrl-C is for the launcher to hear; it ends its workers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--answers", type=int, default=1)
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(asked.answers, "w", encoding="utf-8") as answers:
        _work(asked.folder, asked.threads, asked.memory, answers)


def _work(path: str, threads: int, memory: int, answers: Any) -> None:
    import torch

    from interp.batch.folder import SweepFolder
    from interp.batch.job import Bench, do
    from interp.errors import StorageError

    torch.set_num_threads(threads)
    folder, bench = SweepFolder.open(path), Bench()
    if memory:
        limit_memory(memory)
    _say(answers, {"ready": os.getpid()})
    for line in sys.stdin:
        key = line.strip()
        try:
            said = {"key": key, "outcome": do(folder, key, bench)}
        except StorageError as error:
            said = {"key": key, "outcome": "not stored", "message": str(error)}
        _say(answers, said)


def limit_memory(size: int) -> None:
    """Refuse this process more than `size` bytes of memory of its own: what asks for more gets an error."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size if hard < 0 else min(size, hard), hard))


def _say(answers: Any, said: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(said) + "\n")
        answers.flush()
    except BrokenPipeError:  # the launcher is gone; what was done stands in the folder
        os._exit(0)


if __name__ == "__main__":
    main()
