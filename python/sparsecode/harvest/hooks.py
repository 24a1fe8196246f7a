"""Names of hook points, as TransformerLens writes them."""

from __future__ import annotations

from sparsecode.config import HarvestConfig

_SITES = {
    "mlp": "blocks.{layer}.mlp.hook_post",
    "resid": "blocks.{layer}.hook_resid_post",
    "mlp_out": "blocks.{layer}.hook_mlp_out",
    "attn": "blocks.{layer}.attn.hook_z",
}


def hook_name(config: HarvestConfig) -> str:
    """The hook point that the settings mean: `hook` itself, or the one of `layer` and `site`."""
    return config.hook or _SITES[config.site].format(layer=config.layer)
