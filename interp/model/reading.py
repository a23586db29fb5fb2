"""What a `run_with_cache` call stores, and what it leaves to be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp.errors import HookError, UnknownSiteError
from interp.model.cache import ActivationCache, CacheContents, PosSlice, reader, slice_positions
from interp.model.config import ModelConfig
from interp.model.derive import minimal_reads
from interp.model.passes import Pass
from interp.model.taps import HookPoint, Taps, Write
from interp.sites import AddressBook, Site, SiteFilter

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
    derived: list[Site] = field(default_factory=list)

    def taps(self, job: Pass, writes: Sequence[Write]) -> Taps:
        """The fewest reads from which all wanted sites follow."""
        wanted = self._reached(job)
        edited = {name for write in writes for name in write.names}
        if self.incl_bwd:
            names = tuple(str(site) for site in wanted)
            points = {name: HookPoint(name, site) for name, site in zip(names, wanted, strict=True)}
            watch = Write(names, lambda grad, hook: None, points, backward=True)
            return Taps(names, [*writes, watch])
        if job.past is not None:  # their keys are not all in this pass
            edited |= {str(site) for site in wanted if site.name in ("hook_attn_scores", "hook_pattern")}
        stored, self.derived = minimal_reads(wanted, edited, self.config)
        keep = reader(self.config, pos=self.pos_slice, device=self.device, n_pos=job.n_tokens)
        return Taps([str(site) for site in stored], writes, keep)

    def cache(self, job: Pass, taps: Taps, output: object, model: object) -> ActivationCache:
        stored = {Site.parse(name): x for name, x in taps.values.items()}
        contents = CacheContents(stored, frozenset(self.derived), self.config, job.rows, job.rows)
        if self.incl_bwd:
            contents = CacheContents(
                stored, frozenset(), self.config, job.rows, job.rows, gradients=_gradients(output, stored)
            )
        if self.pos_slice is not None:  # already done to what was kept by a reader, whose rows are still whole
            contents = slice_positions(contents, self.pos_slice, rows_only=not self.incl_bwd)
        cache = ActivationCache(contents, model=model)
        return cache if self.device is None else cache.to(self.device)

    def _reached(self, job: Pass) -> list[Site]:
        main = list(self.config.stacks)[-1]
        n_layers = self.config.stacks[main].n_layers
        picked = self.book.select(self.names_filter)
        reached = [site for site in picked if job.reaches(site, main, n_layers)]
        missing = [site for site in picked if site not in set(reached)]
        named = self.names_filter is not None and not callable(self.names_filter)
        if missing and (named or not reached):
            raise UnknownSiteError(
                f"{missing[0]} is not computed in this call. Check start_at_layer and stop_at_layer, or leave it out."
            )
        return reached


def _gradients(output: object, stored: dict[Site, Tensor]) -> dict[Site, Tensor]:
    if not isinstance(output, Tensor) or output.ndim:
        raise HookError("incl_bwd differentiates a scalar. Pass return_type='loss' without loss_per_token.")
    found = torch.autograd.grad(output, list(stored.values()), allow_unused=True)
    return {site: grad for site, grad in zip(stored, found, strict=True) if grad is not None}
