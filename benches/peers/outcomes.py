"""Whether every kind arrives where other libraries' trainers do: 2,000 steps from the same weights on the same batches.

Rates are those that dictionary_learning chooses, 2e-4 times the root of 16,384 / size, after the same warm-up;
encoders begin as the atoms, the pre-bias at the mean. The reference engine, whose sums are rounded otherwise, shows
what rounding alone comes to: no two trainers can agree better. FVU, L0 and dead features are measured by one and the
same code on rows after the last, of dictionaries that the libraries wrote. Writes its rows after each comparison, small
sizes first.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prepare
import torch
from benches.rows import write_rows
from contenders import copy_of
from kinds import counting_codes, peer_of

from sparsecode.dictionary import Dictionary, JumpRelu
from sparsecode.sweep import LossSettings, Start, Sweep, begin
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.kinds import parse_kinds
from sparsecode.sweep.reconstruction import evaluate
from sparsecode.sweep.start import SAMPLE_ROWS

KINDS = (
    "topk k=16", "batchtopk k=16", "matryoshka k=16", "jumprelu l0=16 penalty=quadratic", "jumprelu l0=16",
    "gated l1=1.5", "panneal l1=1.5", "topk k=16 aux=1/32", "batchtopk k=16 aux=1/32",
)  # fmt: skip
EVAL = 32  # batches


def measured(dictionary: Dictionary, held: torch.Tensor) -> dict[str, float]:
    """FVU, L0, share of dead features and, where there are any, the mean threshold of those that fire."""
    found = evaluate(dictionary, held)
    told = {"fvu": found.fvu, "l0": found.l0, "dead": found.dead / dictionary.dict_size, "threshold": math.nan}
    if isinstance(dictionary.activation, JumpRelu):
        told["threshold"] = float(dictionary.activation.threshold[found.density > 0].mean())
    return {name: round(value, 5) for name, value in told.items()}


def compared(
    text: str, size: int, steps: int, batches: Iterator[torch.Tensor], sample: torch.Tensor, *, as_it_is: bool
) -> list[dict[str, Any]]:
    """Ours, theirs, and with `as_it_is` theirs with what they do beside the loss; `sample` decides the pre-bias.

    Then ours by the reference engine, and ours with their mistake, where there is one.
    """
    (kind,) = parse_kinds(text)
    peak = 2e-4 * math.sqrt(2**14 / size)
    mistaken = kind.penalty == "target"  # in dictionary_learning
    loss = LossSettings(mse="sum", pre_bias=not mistaken)
    sweep = Sweep(sample.shape[1], [size], [kind], [0], peak, loss)
    begin(sweep, Start("atoms"), sample)
    sweep.state.plan(steps)
    peers = [peer_of(sweep, 0, steps), *([peer_of(sweep, 0, steps, as_it_is=True)] if as_it_is else [])]
    engine, reference = choose_engine("cpu", "cpu"), choose_engine("reference", "cpu")
    rounded, twin = copy_of(sweep), copy_of(sweep) if mistaken else None
    for step in range(steps):
        x = next(batches).clone()
        factor = min(1.0, (step + 1) / prepare.WARMUP)
        engine.step(sweep, x, factor)
        reference.step(rounded, x, factor)
        if twin is not None:
            with counting_codes():
                reference.step(twin, x, factor)
        for peer in peers:
            peer.step(x, peak * factor)
    held = torch.cat([next(batches).clone() for _ in range(EVAL)])
    names = ["sparsecode", *(peer.name for peer in peers[:1]), *(f"{peer.name}, as it is" for peer in peers[1:])]
    made = [sweep.dictionary(0), *(peer.dictionary() for peer in peers)]
    names, made = [*names, "sparsecode, reference engine"], [*made, rounded.dictionary(0)]
    if twin is not None:
        names, made = [*names, "sparsecode, L0 of codes"], [*made, twin.dictionary(0)]
    return [
        {"kind": text, "size": size, "contender": name, "steps": steps, "batch": len(x), **measured(one, held)}
        for name, one in zip(names, made, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="harvested activations")
    parser.add_argument("--sizes", default="64,256,1024,4096")
    parser.add_argument("--kind", action="append", help="instead of all")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--most-as-it-is", type=int, default=256, help="sizes above this have no third contender")
    parser.add_argument("--csv", type=Path, default=Path("benches/results/peers-kinds.csv"))
    options = parser.parse_args()
    with prepare.stream_of(options.dataset, SAMPLE_ROWS) as first:
        sample = next(first).clone()
    rows: list[dict[str, Any]] = []
    for size in prepare.sizes(options.sizes):
        for text in options.kind or KINDS:
            more = size <= options.most_as_it_is
            with prepare.stream_of(options.dataset, options.batch) as batches:
                found = compared(text, size, options.steps, batches, sample, as_it_is=more)
            for row in found:
                print("  ".join(str(value) for value in row.values()), flush=True)
            rows += found
            write_rows(options.csv, rows)


if __name__ == "__main__":
    main()
