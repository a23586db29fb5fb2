"""Ray: an actor for each worker keeps a model warm, and the weights of a model are in each node's memory once."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.batch.executors.base import Event, Queue, missing, must_be_whole, not_stored
from interp.batch.folder import Failure, SweepFolder
from interp.batch.job import Bench, do
from interp.batch.spec import RunSpec
from interp.errors import InterpError, StorageError

__all__ = ["Actor", "Ray"]

_LOOK, _AGAIN = 1.0, 0.5  # seconds that ray is asked for at a time, and before a job that another is at is tried again


@dataclass
class Ray:
    """`address`: of a running cluster ("auto" finds it); None starts one on this machine. `workers`: actors, one for
    each core of the cluster if None. `threads` and `memory` (bytes) of each. `share`: put weights into the object
    store, once on each node, instead of reading the checkpoint's files in every actor. `retries`: how often a job whose
    actor died is tried again, elsewhere. The sweep's folder has to be on a file system that all nodes share."""

    address: str | None = None
    workers: int | None = None
    threads: int = 1
    memory: int | None = None
    share: bool = True
    retries: int = 2

    def __post_init__(self) -> None:
        must_be_whole(self, "workers", "threads", "memory")
        must_be_whole(self, "retries", least=0)

    def run(self, folder: SweepFolder, keys: Sequence[str], hear: Callable[[Event], None]) -> None:
        """Run jobs until none is left. A cluster that this call started is shut down at its end."""
        try:
            import ray
        except ImportError as error:
            raise missing("ray", "ray", error) from error
        if not keys:
            return
        ours = not ray.is_initialized()
        if ours:
            started: dict[str, Any] = {"address": self.address, "log_to_driver": False, "logging_level": "error"}
            if self.address is None:
                started |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            ray.init(**started)
        try:
            _Round(ray, self, folder, keys, hear).run()
        finally:
            if ours:
                ray.shutdown()


class Actor:
    """One process of the cluster: keeps the model of its last job."""

    def __init__(self, path: str, threads: int):
        import torch

        torch.set_num_threads(threads)
        self.folder, self.bench = SweepFolder.open(path), Bench()

    def load(self, place: Any, weights: Mapping[str, Any], config: Any, tokenizer: Any) -> None:
        """Take a model from the node's shared memory: its weights are views of it, so they take no more room."""
        import warnings

        import torch

        from interp.model.transformer import HookedTransformer

        self.bench.given.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # they are read only, and nothing writes to them
            tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
        self.bench.given[tuple(place)] = HookedTransformer.from_weights(config, tensors, tokenizer)

    def do(self, key: str) -> str:
        """One job: its outcome, as `interp.batch.job.do` says it; "not stored: …" where nothing can be stored."""
        try:
            return do(self.folder, key, self.bench)
        except StorageError as error:
            return f"not stored: {error}"

    def pid(self) -> int:
        """The process."""
        return os.getpid()


class _Round:
    """One call of `run`: its actors, what each is at, and the jobs that are left."""

    def __init__(self, ray: Any, how: Ray, folder: SweepFolder, keys: Sequence[str], hear: Callable[[Event], None]):
        self.ray, self.how, self.folder, self.hear = ray, how, folder, hear
        self.queue, self.later = Queue(folder, keys), list[tuple[float, str]]()
        most = int(ray.cluster_resources().get("CPU", 1)) // max(1, how.threads)
        self.n = max(1, min(how.workers or most, len(keys)))
        self.at: dict[Any, tuple[Any, str]] = {}  # what is awaited -> actor and key
        self.places: dict[Any, Any] = {}  # actor -> the model it has
        self.shared: dict[Any, Any] = {}
        self.tried: Counter[str] = Counter()

    def run(self) -> None:
        try:
            while self.queue.groups or self.later or self.at:
                now = time.monotonic()
                for one in [one for one in self.later if one[0] <= now]:
                    self.later.remove(one)
                    self.queue.put(one[1])
                self._staff()
                if not self.at:
                    time.sleep(_AGAIN)
                    continue
                ready, _ = self.ray.wait(list(self.at), num_returns=1, timeout=_LOOK)
                for one in ready:
                    self._over(one)
        finally:
            for actor in self.places:
                self.ray.kill(actor)

    def _staff(self) -> None:
        """Give every actor a job, and make actors for what is left."""
        busy = {actor for actor, _ in self.at.values()}
        for actor in [one for one in self.places if one not in busy]:
            self._give(actor)
        while self.queue.groups and len(self.places) < self.n:
            options: dict[str, Any] = {"num_cpus": self.how.threads, "max_restarts": 0}
            if self.how.memory is not None:
                options["memory"] = self.how.memory
            actor = self.ray.remote(Actor).options(**options).remote(str(self.folder.path.resolve()), self.how.threads)
            self.places[actor] = None
            self._give(actor)

    def _give(self, actor: Any) -> None:
        key = self.queue.next(self.places[actor], [place for one, place in self.places.items() if one is not actor])
        if key is None:
            return
        spec = self.folder.specs[key]
        if self.places[actor] != spec.place:
            self.places[actor] = spec.place
            if self.how.share and (parts := self._weights(spec)) is not None:
                actor.load.remote(spec.place, *parts)
        self.at[actor.do.remote(key)] = (actor, key)

    def _weights(self, spec: RunSpec) -> Any:
        """A model's parts in the object store, where ray keeps them once a node; None for one that cannot be loaded
        here: the job itself will say why."""
        if spec.place not in self.shared:
            from interp.batch.sources import open_model, weights_of

            self.shared.clear()  # jobs of one checkpoint come together
            try:
                if weights_of(spec.model, spec.revision, self.folder.sweep.root) != spec.weights:
                    raise InterpError("changed")
                model = open_model(spec.model, spec.revision, self.folder.sweep.root)
                arrays = {name: one.detach().numpy() for name, one in model.named_parameters(remove_duplicate=False)}
                self.shared[spec.place] = (self.ray.put(arrays), model.cfg, model.tokenizer)
            except Exception:
                self.shared[spec.place] = None
        return self.shared[spec.place]

    def _over(self, one: Any) -> None:
        actor, key = self.at.pop(one)
        try:
            outcome = self.ray.get(one)
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.OutOfMemoryError) as error:
            self.places.pop(actor, None)
            self._died(key, error)
            return
        except self.ray.exceptions.RayError as error:
            self.folder.fail(key, Failure.now("error", f"{type(error).__name__}: {error}", traceback=str(error)))
            outcome = "failed"
        if outcome.startswith("not stored"):
            raise not_stored(outcome.removeprefix("not stored: "))
        if outcome == "elsewhere":
            self.later.append((time.monotonic() + _AGAIN, key))
        else:
            self.hear(Event(key, outcome))

    def _died(self, key: str, error: Exception) -> None:
        """The job of an actor that died, or whose node did: again elsewhere, unless it died of it too often."""
        # Its words name the OOM killer among what may have been, whatever it was; the class says what ray itself did.
        memory = isinstance(error, self.ray.exceptions.OutOfMemoryError)
        if self.folder.is_done(key):
            self.hear(Event(key, "done"))
            return
        self.tried[key] += 1
        if memory or self.tried[key] > self.how.retries:
            said = "out of memory: ray ended its process" if memory else "its process, or the node of it, ended"
            kind = "memory" if memory else "killed"
            self.folder.fail(key, Failure.now(kind, said, traceback=str(error)))
            self.folder.log(key, "failed", kind=kind, message=said)
            self.hear(Event(key, "failed"))
        else:
            self.folder.log(key, "again", message=str(error).splitlines()[0])
            self.later.append((time.monotonic() + _AGAIN, key))
