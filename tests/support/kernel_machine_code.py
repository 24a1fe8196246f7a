"""Reads the machine code of a Triton kernel: hot loop, spills, registers, and the bound on tensor-core use.

NVIDIA code is read from `nvdisasm` and `cuobjdump` as Triton bundles them, AMD code from the assembly it keeps.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Limits and rates per multiprocessor. Shared memory: CUDA C programming guide, table of compute capabilities, minus the
# 1 KiB a block reserves; CDNA3 instruction set guide for LDS. Dense 16-bit FLOPs per cycle: peak / (units x clock) of
# the vendors' data sheets (A100 312 T / 108 / 1.41 GHz, H100 989 T / 132 / 1.83, B200 2250 T / 148 / 1.85, MI300X
# 1307 T / 304 / 2.1).
SHARED_LIMIT = {"sm_80": 166_912, "sm_86": 101_376, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}
FLOPS_PER_CYCLE = {"sm_80": 2048, "sm_86": 1024, "sm_90": 4096, "sm_100": 8192, "gfx942": 2048}
TENSOR = {
    "sm_80": r"HMMA",
    "sm_86": r"HMMA",
    "sm_90": r"HGMMA",
    "sm_100": r"UTC\w*MMA",
    "gfx942": r"v_mfma",
}


@dataclass(frozen=True)
class Syntax:
    """How an assembly listing writes an instruction and a label."""

    instruction: re.Pattern[str]
    label: re.Pattern[str]


SASS = Syntax(
    re.compile(
        r"^\s*/\*[0-9a-f]{4,}\*/\s+(?P<guard>@!?U?P\w+\s+)?(?P<opcode>[A-Z][A-Za-z0-9_.]*)\s*(?P<operands>[^;]*);"
    ),
    re.compile(r"^\s*(\.L_x_\d+):"),
)
GCN = Syntax(
    re.compile(r"^\s+(?P<guard>(?!))?(?P<opcode>[a-z]\w+)\s*(?P<operands>.*?)(?:;.*)?$"),
    re.compile(r"^(\.LBB\d+_\d+):"),
)


@dataclass(frozen=True)
class Instruction:
    """One line of code; `guarded` where a predicate may skip it."""

    opcode: str
    operands: str
    guarded: bool


@dataclass
class Code:
    """A kernel's machine code in numbers."""

    registers: int
    shared: int
    loop: list[str]  # opcodes of the loop that holds most tensor instructions
    opcodes: list[str]
    tensor_memory: int = 0

    def count(self, pattern: str) -> int:
        """Number of instructions in the hot loop whose opcode matches."""
        return sum(bool(re.match(pattern, opcode)) for opcode in self.loop)

    def total(self, pattern: str) -> int:
        """The count over the whole kernel."""
        return sum(bool(re.match(pattern, opcode)) for opcode in self.opcodes)


def read_code(compiled: Any, arch: str, *, listing: bool = True) -> Code:
    """The code of a kernel that `triton.compile` returned.

    Args:
        listing: whether the instructions are wanted where nothing spilled. Disassembling takes as long as compiling a
            small kernel does; one without a stack has no spills, and that is read from the code's header.
    """
    if arch.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        opcodes, loop = _hot_loop(text, GCN)
        found = [int(value) for value in re.findall(r"\.(?:vgpr|agpr)_count:\s+(\d+)", text)]
        return Code(max(found, default=0), compiled.metadata.shared, loop, opcodes)
    tools = _tools()
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _run([str(tools / "cuobjdump"), "-res-usage", file.name])
        plain = not listing and stackless(usage)
        sass = "" if plain else _run([str(tools / "nvdisasm"), "-c", file.name])
    registers = re.search(r"REG:(\d+)", usage)
    opcodes, loop = _hot_loop(sass, SASS) if sass else ([], [])
    memory = getattr(compiled.metadata, "tmem_size", 0) or 0
    return Code(int(registers[1]) if registers else 0, compiled.metadata.shared, loop, opcodes, memory)


def stackless(usage: str) -> bool:
    """Whether `cuobjdump -res-usage` rules out spills, which would be in the stack, in local memory."""
    return bool(re.search(r"\bSTACK:0\b", usage)) and bool(re.search(r"\bLOCAL:0\b", usage))


def static_bound(code: Code, arch: str, warps: int, flops: int) -> float:
    """Share of the tensor cores' peak that the hot loop cannot exceed, from issue slots and shared memory alone.

    Args:
        flops: tensor-core operations of one turn of the loop as it is written in the kernel.

    An NVIDIA multiprocessor issues one instruction per cycle in each of four quarters and moves 128 bytes per cycle
    from shared memory; a CDNA3 unit's four SIMDs take four cycles per vector instruction of 64 lanes. What waits for
    global memory is not in it, nor what tensor cores read from shared memory by themselves (sm_90 and later). A loop
    that the compiler unrolled would be rated too low.
    """
    useful = flops / FLOPS_PER_CYCLE[arch]
    # More than useful where a tile has too few rows for its warps and some repeat the work of others.
    tensor = max(useful, _loop_flops(code, arch, warps) / FLOPS_PER_CYCLE[arch])
    if arch.startswith("gfx"):
        vector = code.count(r"v_(?!mfma)") * warps
        shared = sum(_lds_bytes(opcode) for opcode in code.loop) * 64 * warps / 128
        return useful / max(tensor, vector, shared)
    issue = len(code.loop) * warps / 4
    shared = sum(_shared_bytes(opcode) for opcode in code.loop) * warps / 128
    return useful / max(tensor, issue, shared)


def _shared_bytes(opcode: str) -> int:
    """Bytes of shared memory that one instruction of a warp moves."""
    if found := re.match(r"(?:LDSM|STSM)\.16\.MT?88(?:\.(\d))?", opcode):
        return 128 * int(found[1] or 1)
    if re.match(r"(?:LDS|STS|LDGSTS)\b", opcode):
        width = re.search(r"\.(64|128)\b", opcode)
        return 4 * int(width[1]) if width else 128
    return 0


def _lds_bytes(opcode: str) -> int:
    """Bytes of local data share that one lane of an instruction moves."""
    found = re.match(r"ds_(?:read|write|load|store)(2?)\w*_b(\d+)", opcode)
    return (2 if found[1] else 1) * int(found[2]) // 8 if found else 0


def _loop_flops(code: Code, arch: str, warps: int) -> float:
    total = 0.0
    for opcode in code.loop:
        if shape := re.match(r"HMMA\.(\d+?)(8)(8|16|32)\b", opcode):
            total += 2 * int(shape[1]) * int(shape[2]) * int(shape[3]) * warps
        elif shape := re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", opcode):
            total += 2 * int(shape[1]) * int(shape[2]) * int(shape[3]) * warps / 4
        elif shape := re.match(r"v_mfma_f32_(\d+)x(\d+)x(\d+)", opcode):
            total += 2 * int(shape[1]) * int(shape[2]) * int(shape[3]) * warps
    return total


def _hot_loop(text: str, syntax: Syntax) -> tuple[list[str], list[str]]:
    """(opcodes of the kernel, opcodes of the smallest natural loop among those with most tensor instructions)."""
    code, labels = _parse(text, syntax)
    following = _successors(code, labels)
    dominators = _dominators(following)
    loops = []
    for source, targets in enumerate(following):
        for head in targets:
            if source in dominators and head in dominators[source]:
                body = [code[index].opcode for index in sorted(_natural_loop(following, head, source))]
                loops.append((sum("MMA" in name or "mfma" in name for name in body), -len(body), body))
    best = max(loops, key=lambda loop: loop[:2])[2] if loops else []
    return [one.opcode for one in code], best


def _parse(text: str, syntax: Syntax) -> tuple[list[Instruction], dict[str, int]]:
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if found := syntax.label.match(line):
            labels[found[1]] = len(code)
        elif found := syntax.instruction.match(line):
            code.append(Instruction(found["opcode"], found["operands"], bool(found["guard"])))
    return code, labels


def _successors(code: list[Instruction], labels: dict[str, int]) -> list[list[int]]:
    following: list[list[int]] = []
    for index, one in enumerate(code):
        target = re.search(r"\.L(?:_x_\d+|BB\d+_\d+)", one.operands)
        branches = one.opcode.startswith(("BRA", "s_cbranch", "s_branch")) and target is not None
        ends = one.opcode in ("EXIT", "s_endpgm") and not one.guarded
        always = one.opcode == "s_branch" or (one.opcode.startswith("BRA") and one.operands.startswith(("`(", ".L")))
        jumps = branches and not one.guarded and always
        after = [labels[target[0]]] if branches and target and target[0] in labels else []
        if not ends and not jumps and index + 1 < len(code):
            after.append(index + 1)
        following.append([where for where in after if where < len(code)])
    return following


def _dominators(following: list[list[int]]) -> dict[int, set[int]]:
    """Per reachable branch target or source, the instructions on every path to it.

    Only heads of blocks are kept apart: straight-line code is walked as one block.
    """
    heads = {0} | {where for index, after in enumerate(following) for where in after if where != index + 1}
    heads |= {index + 1 for index, after in enumerate(following) if len(after) != 1 or after[0] != index + 1}
    order = sorted(head for head in heads if head < len(following))
    block_of = {}
    for position, head in enumerate(order):
        stop = order[position + 1] if position + 1 < len(order) else len(following)
        block_of.update(dict.fromkeys(range(head, stop), head))
    before: dict[int, set[int]] = {head: set() for head in order}
    for index, after in enumerate(following):
        for where in after:
            if where in before:
                before[where].add(block_of[index])
    found = {head: set(order) for head in order}
    found[0] = {0}
    changed = True
    while changed:
        changed = False
        for head in order[1:]:
            sources = [found[source] for source in before[head]]
            new = {head} | (set.intersection(*sources) if sources else set())
            changed |= new != found[head]
            found[head] = new
    return {index: found[block_of[index]] for index in range(len(following))}


def _natural_loop(following: list[list[int]], head: int, tail: int) -> set[int]:
    before: dict[int, list[int]] = {}
    for index, after in enumerate(following):
        for where in after:
            before.setdefault(where, []).append(index)
    body, waiting = {head, tail}, [tail]
    while waiting:
        at = waiting.pop()
        if at == head:
            continue
        for source in before.get(at, []):
            if source not in body:
                body.add(source)
                waiting.append(source)
    return body


def _tools() -> Path:
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
