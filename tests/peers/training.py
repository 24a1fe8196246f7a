"""Every kind, trained here and by its library's own trainer, comes to the same: `make interop`.

    python tests/peers/training.py LIBRARY

Runs in the environment of the library, saelens or dictionary_learning. Both begin with the same weights and take 300
steps on the same batches; benches/peers/outcomes.py takes 2,000 on real activations. Fails if FVU or L0 differ by more
than 1 % (JumpReLU 2 % and 5 %), thresholds by 2 % or dead features by 2 points; and if clipping gradients, which the
libraries do and this comparison switches off, goes unnoticed. Where the library makes a mistake, it is made here too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benches/peers")]
from outcomes import compared  # noqa: E402 (found through the lines above)

KINDS = {
    "saelens": ["jumprelu l0=6 penalty=quadratic"],
    "dictionary_learning": [
        "topk k=6", "batchtopk k=6", "matryoshka k=6", "gated l1=0.3", "panneal l1=0.3 p_end=0.6",
        "jumprelu l0=6", "topk k=6 aux=1/32 dead_after=5120", "batchtopk k=6 aux=1/32 dead_after=5120",
    ],
}  # fmt: skip
ROWS, D, SIZE, STEPS, TRUE, ACTIVE = 512, 16, 64, 300, 96, 4


def batches(seed: int = 0) -> Iterator[torch.Tensor]:
    """Sums of a few of many directions, off the origin."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(TRUE, D, generator=generator))
    while True:
        codes = torch.rand(ROWS, TRUE, generator=generator) * (
            torch.rand(ROWS, TRUE, generator=generator) < ACTIVE / TRUE
        )
        yield 2 * codes @ atoms + 0.5


def wrong(kind: str, own: dict[str, float], peer: dict[str, float]) -> list[str]:
    """What differs by more than it may."""
    jump = kind.startswith("jumprelu")
    limits = {"fvu": 0.02 if jump else 0.01, "l0": 0.05 if jump else 0.01, "threshold": 0.02}
    found = [name for name, limit in limits.items() if abs(own[name] - peer[name]) > limit * abs(peer[name])]
    return found + (["dead"] if abs(own["dead"] - peer["dead"]) > 0.02 else [])


def main() -> None:
    bad = []
    for kind in KINDS[sys.argv[1]]:
        sample = next(batches(1))
        found = compared(kind, SIZE, STEPS, batches(), sample, as_it_is=True)
        own, peer, clipped, *mistaken = found
        for row in found:
            figures = "  ".join(f"{name} {row[name]:.5g}" for name in ("fvu", "l0", "dead", "threshold"))
            print(f"  {kind:40} {row['contender']:55} {figures}", flush=True)
        if mistaken and not wrong(kind, own, peer):
            bad.append(f"{kind}: the mistake of the library was not noticed")
        own = mistaken[0] if mistaken else own
        bad += [f"{kind}: {name}" for name in wrong(kind, own, peer)]
        if not wrong(kind, own, clipped):
            bad.append(f"{kind}: clipped gradients were not noticed")
    if bad:
        sys.exit("training: " + "; ".join(bad))


if __name__ == "__main__":
    main()
