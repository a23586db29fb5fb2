"""What can be computed from other tensors of the same pass, so that a cache need not store it.

One entry per derivable tensor: what it is made from, and how. The forward pass uses the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from interp.model.activations import activation
from interp.model.attention import attention_pattern, attention_scores, head_results
from interp.model.block import block_kind
from interp.model.config import AttentionConfig, BlockConfig, ModelConfig, NormConfig
from interp.model.norms import norm_scale, normalize
from interp.model.positions import Rows, rotate
from interp.sites import AddressBook, Site

__all__ = ["Deriver", "book_of", "minimal_reads", "source_table", "sources"]

Get = Callable[[Site], Tensor]
_SUMS = ("hook_resid_mid", "hook_resid_mid_cross")  # of the cut before and what a sublayer adds
_FROM_PLAIN_QK = ("hook_attn_scores",)


def sources(site: Site, config: ModelConfig) -> tuple[Site, ...]:
    """The sites that this one is computed from; empty if it can only be read."""
    if site.name == "hook_unembed":
        return ()
    stack = config.stacks[site.stack]
    here = lambda name: replace(site, name=name)  # noqa: E731
    if site.name in ("hook_scale", "hook_normalized"):
        cuts = _norm_inputs(site, stack.n_layers, stack.blocks[-1 if site.layer is None else site.layer])
        return cuts if site.name == "hook_scale" else (*cuts, here("hook_scale"))
    if site.layer is None:
        return ()
    block = stack.blocks[site.layer]
    rotated = site.part.endswith("attn") and _attention(site, block).rotary is not None
    normed = site.part.endswith("attn") and _attention(site, block).qk_norm is not None
    if site.name == "hook_attn_scores" and _attention(site, block).scoring == "additive":
        return ()  # they need weights besides q and k
    if (site.name in _SUMS and block.norms == "post") or (site.name in _FROM_PLAIN_QK and normed and not rotated):
        return ()
    if site.name in ("hook_rot_q", "hook_rot_k") and normed:
        return ()
    match site.name:
        case "hook_resid_mid":
            return (here("hook_resid_pre"), here("hook_attn_out"))
        case "hook_resid_mid_cross":
            return (here("hook_resid_mid"), here("hook_cross_attn_out"))
        case "hook_rot_q":
            return (here("hook_q"),)
        case "hook_rot_k":
            return (here("hook_k"),)
        case "hook_attn_scores":
            return (here("hook_rot_q"), here("hook_rot_k")) if rotated else (here("hook_q"), here("hook_k"))
        case "hook_pattern":
            return (here("hook_attn_scores"),)
        case "hook_result":
            return (here("hook_z"),)
        case "hook_post":
            gated = block.mlp is not None and block.mlp.gated
            return (here("hook_pre"), here("hook_pre_linear")) if gated else (here("hook_pre"),)
    return ()


def source_table(book: AddressBook, config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """The sources of every derivable site, by canonical name."""
    table = {str(site): tuple(str(source) for source in sources(site, config)) for site in book}
    return {name: made_from for name, made_from in table.items() if made_from}


def minimal_reads(
    wanted: Iterable[str], edited: Collection[str], table: Mapping[str, tuple[str, ...]]
) -> tuple[list[str], list[str]]:
    """Split `wanted` (in forward order) into what the pass must store and what follows from that afterwards.

    An edited site is always stored, since what stands upstream of it no longer tells what it was.
    """
    stored: list[str] = []
    derived: list[str] = []
    have: set[str] = set()
    for name in wanted:
        made_from = table.get(name)
        follows = made_from is not None and name not in edited and have.issuperset(made_from)
        (derived if follows else stored).append(name)
        have.add(name)
    return stored, derived


class Deriver:
    """Computes derivable sites of one pass. `weights(site)` gives the W_O a head result needs, or raises."""

    def __init__(self, config: ModelConfig, rows: Mapping[str, Rows], weights: Callable[[Site], Tensor]):
        self.config, self.rows, self.weights = config, rows, weights

    def __call__(self, site: Site, get: Get) -> Tensor:
        made_from = tuple(get(source) for source in sources(site, self.config))
        stack = self.config.stacks[site.stack]
        if site.part == "ln_final":
            return self._norm(site, made_from, stack.final_norm or NormConfig("none"))
        assert site.layer is not None
        block = stack.blocks[site.layer]
        if not site.part:  # a residual cut: the sum the pass made, bit for bit
            return made_from[0] + made_from[1]
        if site.part.startswith("ln"):
            return self._norm(site, made_from, block.norm)
        if site.part == "mlp":
            assert block.mlp is not None
            post = activation(block.mlp.act_fn)(made_from[0])
            return post * made_from[1] if block.mlp.gated else post
        return self._attention(site, made_from, _attention(site, block))

    def _norm(self, site: Site, made_from: tuple[Tensor, ...], norm: NormConfig) -> Tensor:
        if site.name == "hook_scale":
            return norm_scale(sum(made_from[1:], made_from[0]), norm)
        *parts, scale = made_from
        return normalize(sum(parts[1:], parts[0]), scale, norm)

    def _attention(self, site: Site, made_from: tuple[Tensor, ...], attn: AttentionConfig) -> Tensor:
        rows = self._rows(site)
        if site.name in ("hook_rot_q", "hook_rot_k"):
            assert attn.rotary is not None
            return rotate(made_from[0], rows, attn.rotary)
        if site.name == "hook_attn_scores":
            q, k = made_from
            return attention_scores(q, k, rows, attn)
        if site.name == "hook_pattern":
            return attention_pattern(made_from[0])
        return head_results(made_from[0], self.weights(site))

    def _rows(self, site: Site) -> Rows:
        rows = self.rows[site.stack]
        return rows.across(self.rows["encoder"]) if site.part == "cross_attn" else rows


def book_of(config: ModelConfig) -> AddressBook:
    """The address book of any model with this config."""
    from interp.model.bridge_names import bridge_names
    from interp.model.stack import stack_sites

    sites = [site for name, stack in config.stacks.items() for site in stack_sites(name, stack)]
    sites += [Site("hook_unembed")] if config.has_unembed else []
    return AddressBook(sites, {name: stack.n_layers for name, stack in config.stacks.items()}, bridge_names(config))


def _attention(site: Site, block: BlockConfig) -> AttentionConfig:
    attn = block.cross_attn if site.part == "cross_attn" else block.attn
    assert attn is not None
    return attn


def _norm_inputs(site: Site, n_layers: int, block: BlockConfig) -> tuple[Site, ...]:
    """The sites whose sum a norm reads."""
    if site.layer is None:
        return (Site("hook_resid_post", "", n_layers - 1, site.stack),)
    paths = block_kind(block).norm_inputs(block)[site.part]
    return tuple(Site(path.rpartition(".")[2], path.rpartition(".")[0], site.layer, site.stack) for path in paths)
