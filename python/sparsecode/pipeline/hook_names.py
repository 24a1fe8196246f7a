"""Names of hook points, as TransformerLens writes them."""

from __future__ import annotations

import re

from sparsecode.errors import InvalidSetting
from sparsecode.pipeline.config import HarvestConfig

_SITES = {
    "mlp": "blocks.{layer}.mlp.hook_post",
    "resid": "blocks.{layer}.hook_resid_post",
    "mlp_out": "blocks.{layer}.hook_mlp_out",
    "attn": "blocks.{layer}.attn.hook_z",
    "attn_out": "blocks.{layer}.hook_attn_out",
    "resid_pre": "blocks.{layer}.hook_resid_pre",
    "resid_mid": "blocks.{layer}.hook_resid_mid",
}


def hook_name(config: HarvestConfig) -> str:
    """The hook point that settings for a single one mean: a module, `hook` itself, or the one of `layer` and `site`."""
    if config.module:
        return config.module[0].removesuffix("@output")
    return config.hook or _SITES[config.site].format(layer=config.layer)


def single_configs(config: HarvestConfig) -> list[HarvestConfig]:
    """For each hook point that the settings mean, the settings as if it had been asked for alone.

    Raises:
        InvalidSetting: the layers cannot be read.
    """
    if config.module:
        return [config.changed(module=(path,), hook=None) for path in dict.fromkeys(config.module)]
    if config.hook:
        return [config.changed(hook=name.strip()) for name in dict.fromkeys(config.hook.split(","))]
    return [
        config.changed(layer=layer, site=site)
        for layer in parse_layers(config.layer)
        for site in dict.fromkeys(config.site.split(","))
    ]


def hook_names(config: HarvestConfig) -> list[str]:
    """Names of all hook points that settings mean."""
    return [hook_name(single) for single in single_configs(config)]


def parse_layers(layers: int | str) -> list[int]:
    """`2`, `0,2,4`, `0-5` and mixtures: layer numbers in the order given, each once.

    Raises:
        InvalidSetting: something else.
    """
    found: list[int] = []
    for part in str(layers).split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InvalidSetting(f"harvest: --layer '{layers}' is not a layer, nor several as 0,2,4 or 0-5")
        found += range(first, last + 1)
    return list(dict.fromkeys(found))
