"""Many models, checkpoints, tasks and analyses: planned, run on this machine or a cluster, and gone on with after a
kill."""

from interp.batch.analyses import Analysis, Ask, analyses
from interp.batch.folder import Failure, SweepFolder
from interp.batch.run import plan, retry, run
from interp.batch.spec import RunSpec, Sweep
from interp.batch.status import Status, status

__all__ = [
    "Analysis",
    "Ask",
    "Failure",
    "RunSpec",
    "Status",
    "Sweep",
    "SweepFolder",
    "analyses",
    "plan",
    "retry",
    "run",
    "status",
]
