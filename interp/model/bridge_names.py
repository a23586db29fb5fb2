"""What TransformerLens' bridge calls the tensors of a model, where that depends on how the model is built.

Names that mean the same in every model stand in the table of `interp.sites`. A name is mapped only where both its
reading and its edit are those of a site: inputs of one projection (`attn.q.hook_in`) are not, since an edit of our
site would reach all that read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from interp.model.block import block_kind
from interp.model.config import BlockConfig, ModelConfig, StackConfig

__all__ = ["bridge_names"]

Spellings = dict[str, str | None]
# Sublayers whose modules in transformers add the residual (and norm the sum) themselves: the bridge sees the cut.
_ADDING = {"bert": ("attn",), "roberta": ("attn",), "bloom": ("attn", "mlp")}
_CUTS = {"attn": "hook_resid_mid", "cross_attn": "hook_resid_mid_cross"}


def bridge_names(config: ModelConfig) -> Spellings:
    """The bridge's spelling -> the canonical one; None where it means a tensor that has no site here."""
    found: Spellings = {}
    for name, stack in config.stacks.items():
        address = f"{name}." if name else ""
        found |= {
            address + theirs: ours and address + ours for theirs, ours in _stack(stack, _ADDING.get(config.family, ()))
        }
    return found | _unembedding(config)


def _stack(stack: StackConfig, adding: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    if stack.embed_norm is not None and stack.embed_width is None and stack.blocks:
        yield "embed_ln.hook_out", "blocks.0.hook_resid_pre"
    for layer, block in enumerate(stack.blocks):
        for theirs, ours in _block(block, adding).items():
            yield f"blocks.{layer}.{theirs}", ours and f"blocks.{layer}.{ours}"
    if stack.final_norm is not None and stack.blocks:
        yield "ln_final.hook_in", f"blocks.{stack.n_layers - 1}.hook_resid_post"


def _block(block: BlockConfig, adding: Sequence[str]) -> Spellings:
    found: Spellings = {"hook_resid_mid2": "hook_resid_mid_cross"} if block.cross_attn is not None else {}
    kinds = block_kind(block).sublayers
    for n, kind in enumerate(kinds, start=1):
        added: str | None = f"hook_{kind}_out"
        whole = f"{kind}.hook_out"
        last = f"{kind}.out.hook_out" if kind == "mlp" else f"{kind}.o.hook_out"
        if block.residual_scale != 1.0:  # the bridge sees what is added before it is scaled
            added = None
        if block.norms in ("output", "both"):
            found |= {whole: f"ln{n}_post.hook_in", last: f"ln{n}_post.hook_in", f"ln{n}_post.hook_out": added}
        else:
            found |= {whole: added, last: added}
        cut = "hook_resid_post" if n == len(kinds) else _CUTS[kind]
        if kind in adding:
            found[whole] = cut
        if block.norms == "post":
            found |= {f"ln{n}.hook_in": None, f"ln{n}.hook_out": cut}
    return found


def _unembedding(config: ModelConfig) -> Spellings:
    found: Spellings = {}
    if config.logit_scale != 1.0 or config.logit_softcap is not None:
        found["unembed.hook_out"] = None  # the bridge's is not scaled or capped yet
    name, stack = list(config.stacks.items())[-1]
    if stack.final_norm is None and stack.blocks:
        reads = "unembed.hook_in" if config.transform is None else "mlm_head.hook_in"
        found[reads] = f"{name + '.' if name else ''}blocks.{stack.n_layers - 1}.hook_resid_post"
    return found
