"""What a `run_with_cache` call stores, and what it leaves to be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp.errors import HookError, UnknownSiteError
from interp.model.cache import ActivationCache, CacheContents, PosSlice, reader, slice_positions
from interp.model.config import ModelConfig
from interp.model.derive import minimal_reads
from interp.model.passes import Pass
from interp.model.taps import HookPoint, Taps, Write
from interp.sites import AddressBook, SiteFilter

__all__ = ["Reading"]


@dataclass
class Reading:
    """One call's wish, turned into taps before the pass and into a cache after it."""

    config: ModelConfig
    book: AddressBook
    names_filter: SiteFilter
    pos_slice: PosSlice
    device: torch.device | str | None
    incl_bwd: bool
    sources: Mapping[str, tuple[str, ...]]
    derived: list[str] = field(default_factory=list)

    def taps(self, job: Pass, writes: Sequence[Write]) -> Taps:
        """The fewest reads from which all wanted sites follow."""
        wanted = self._reached(job)
        edited = {name for write in writes for name in write.names}
        if self.incl_bwd:
            points = {name: HookPoint(name, self.book[name]) for name in wanted}
            watch = Write(tuple(wanted), lambda grad, hook: None, points, backward=True)
            return Taps(wanted, [*writes, watch])
        if job.past is not None:  # their keys are not all in this pass
            edited |= {name for name in wanted if name.endswith((".hook_attn_scores", ".hook_pattern"))}
        stored, self.derived = minimal_reads(wanted, edited, self.sources)
        keep = reader(self.config, pos=self.pos_slice, device=self.device, n_pos=job.n_tokens)
        return Taps(stored, writes, keep)

    def cache(self, job: Pass, taps: Taps, output: object, model: object) -> ActivationCache:
        stored = taps.values
        contents = CacheContents(stored, frozenset(self.derived), self.config, job.rows, job.rows)
        if self.incl_bwd:
            contents = CacheContents(
                stored, frozenset(), self.config, job.rows, job.rows, gradients=_gradients(output, stored)
            )
        if self.pos_slice is not None:  # already done to what was kept by a reader, whose rows are still whole
            contents = slice_positions(contents, self.pos_slice, rows_only=not self.incl_bwd)
        cache = ActivationCache(contents, model=model)
        return cache if self.device is None else cache.to(self.device)

    def _reached(self, job: Pass) -> list[str]:
        """Canonical names of what is wanted and computed, in forward order."""
        main = list(self.config.stacks)[-1]
        n_layers = self.config.stacks[main].n_layers
        picked = self.book.select(self.names_filter)
        missing = [site for site in picked if not job.reaches(site, main, n_layers)]
        named = self.names_filter is not None and not callable(self.names_filter)
        if missing and (named or len(missing) == len(picked)):
            raise UnknownSiteError(
                f"{missing[0]} is not computed in this call. Check start_at_layer and stop_at_layer, or leave it out."
            )
        reached = {str(site) for site in picked}.difference(str(site) for site in missing)
        return [name for name in self.book.names if name in reached]


def _gradients(output: object, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(output, Tensor) or output.ndim:
        raise HookError("incl_bwd differentiates a scalar. Pass return_type='loss' without loss_per_token.")
    found = torch.autograd.grad(output, list(stored.values()), allow_unused=True)
    return {name: grad for name, grad in zip(stored, found, strict=True) if grad is not None}
