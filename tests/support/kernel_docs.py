"""Writes the generated tables of docs/kernels.md: gates, planted bugs, model.

    python tests/support/kernel_docs.py            # gates (cached) and model
    python tests/support/kernel_docs.py mutants    # plants the bugs as well, in this process's own interpreter

Each table lies between `<!-- NAME -->` and `<!-- end NAME -->`, as `make format` leaves it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import kernel_gates
from sparsecode.sweep.engines.gpu.cost import DEVICES, EXPECTED, predict, sparse_density

DOCS = Path(__file__).parents[2] / "docs" / "kernels.md"
SHAPES = (
    ("7 dictionaries, 64..4096", 128, [64, 128, 256, 512, 1024, 2048, 4096]),
    ("16 of 4096", 32, [4096] * 16),
    ("16 of 4096", 64, [4096] * 16),
    ("16 of 4096", 128, [4096] * 16),
    ("16 of 4096", 256, [4096] * 16),
    ("16 of 4096", 512, [4096] * 16),
    ("2 of 32768", 128, [32768] * 2),
)
BATCH = 8192


def gate_table() -> str:
    """One line per kernel, architecture and width."""
    import triton

    lines = [
        f"Triton {triton.__version__}, 16-bit operands unless the kernel says otherwise.",
        "",
        "| kernel | arch | D | tile | warps, stages | registers | shared, KiB | tensor | loop | spills | bound |",
        "| -- | -- | -- | -- | -- | -- | -- | -- | -- | -- | -- |",
    ]
    for case, report in kernel_gates.run():
        consts = dict(case.consts)
        tile = f"{consts['BB']} x {consts['BF']}" if "BB" in consts else "-"
        label = case.label if case.operands in ("fp16",) or not case.flops else f"{case.label}, {case.operands}"
        if case.bad:
            label = f"*{label}, must fail*"
        hot = (report.tensor, report.loop, report.spills) if case.flops and report.tensor else ("-", "-", "-")
        bound = f"{report.bound:.2f}" if report.bound else "-"
        cells = (
            label,
            case.arch,
            case.D,
            tile,
            f"{case.warps}, {case.stages}",
            report.registers,
            f"{report.shared / 1024:.0f}",
            *hot,
            bound,
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    failed = [(case, report) for case, report in kernel_gates.run() if case.bad]
    lines += ["", "What the two that must fail fail for:", ""]
    lines += [f"- {case.label}, {case.arch}, D={case.D}: {'; '.join(report.failures)}" for case, report in failed]
    return "\n".join(lines)


def model_table() -> str:
    """Milliseconds per step, by device and shape."""
    lines = [
        "| device | sweep | D | torch autograd | fused | products | lists, L0 20/4096 | pay below | engine takes |",
        "| -- | -- | -- | -- | -- | -- | -- | -- | -- |",
    ]
    for device in DEVICES:
        for name, D, sizes in SHAPES:
            found = predict(device, D, sizes, BATCH, l0=EXPECTED * sum(sizes) / len(sizes))
            ways = (found.eager, found.fused, found.products, found.sparse)
            share = f"{100 * sparse_density(device.arch, D, sizes, BATCH):.1f} %" if found.sparse is not None else "-"
            dense = "fused" if found.prefers_fused else "products"
            taken = f"lists, {dense} where dense" if found.prefers_sparse else dense
            cells = (device.name, name, D, *(f"{one:.2f}" if one is not None else "-" for one in ways), share, taken)
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def mutant_table() -> str:
    """Every planted bug and the check that caught it."""
    os.environ["TRITON_INTERPRET"] = "1"
    from kernel_mutants import MUTANTS, caught_by

    lines = ["| kernel | planted bug | caught by | as |", "| -- | -- | -- | -- |"]
    with TemporaryDirectory() as folder:
        for mutant in MUTANTS:
            found = caught_by(mutant, Path(folder))
            check, _, how = (found or "nothing: survived").partition(": ")
            how = re.sub(r"^\w+\(['\"](.*)['\"]\)$", r"\1", how).replace("|", "\\|")
            lines.append(f"| {mutant.module} | {mutant.bug} | {check.removeprefix('check_')} | {how} |")
    survived = sum("survived" in line for line in lines)
    return "\n".join([*lines, "", f"{len(MUTANTS)} planted, {len(MUTANTS) - survived} caught."])


def replace_table(text: str, name: str, table: str) -> str:
    """The text with a named table written anew."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    assert text.count(begin) == text.count(end) == 1, f"docs/kernels.md needs one {begin} and one {end}"
    return text[: text.index(begin) + len(begin)] + f"\n\n{table}\n\n" + text[text.index(end) :]


def main() -> None:
    """Writes the tables."""
    text = DOCS.read_text()
    os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"
    if "mutants" in sys.argv:  # not with the gates: interpreter and compiler cannot share a process
        text = replace_table(text, "mutants", mutant_table())
    else:
        text = replace_table(replace_table(text, "gates", gate_table()), "model", model_table())
    DOCS.write_text(text)


if __name__ == "__main__":
    main()
