"""The kernels compile for every architecture and their machine code passes the gates: in a process of its own, cached.

A cold run compiles some 200 kernels, a process per core (`python tests/support/kernel_gates.py` shows each); a warm one
reads target/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_machine_code import GCN, SASS, Code, _hot_loop, stackless, static_bound

ROOT = Path(__file__).parents[2]


def test_gates() -> None:
    pytest.importorskip("triton", reason="Triton is not installed: the kernels cannot be compiled here")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(ROOT / "tests/support/kernel_gates.py")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert done.returncode == 0, "\n".join(failed) or done.stderr[-3000:]
    assert done.stdout.count("(must fail)") == 2


# The reader of machine code, on listings whose loops are known.

LISTING = """
        /*0000*/ MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/ LDGSTS.E.128 [R2], [R4.64] ;
.L_x_1:
        /*0020*/ LDSM.16.M88.4 R8, [R2] ;
        /*0030*/ HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0040*/ HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0050*/ @!P0 BRA `(.L_x_2) ;
.L_x_3:
        /*0060*/ ISETP.NE P1, R1, R2 ;
        /*0070*/ @P1 BRA `(.L_x_1) ;
        /*0080*/ STL [R1], R2 ;
        /*0090*/ @P2 BRA `(.L_x_0) ;
        /*00a0*/ EXIT ;
.L_x_2:
        /*00b0*/ NANOSLEEP 0x20 ;
        /*00c0*/ BRA `(.L_x_3) ;
"""


def test_hot_loop_is_the_inner_one_with_its_detour() -> None:
    """A jump back from code placed after the end is not a loop, and the code it skips is part of the loop."""
    opcodes, loop = _hot_loop(LISTING, SASS)
    assert len(opcodes) == 13
    assert loop == [
        "LDSM.16.M88.4",
        "HMMA.16816.F32",
        "HMMA.16816.F32",
        "BRA",
        "ISETP.NE",
        "BRA",
        "NANOSLEEP",
        "BRA",
    ]


def test_hot_loop_of_amd_code() -> None:
    listing = (
        "\ts_load_dword s0, s[0:1], 0x0\n.LBB0_1:\n\tds_read_b128 v[0:3], v4\n"
        "\tv_mfma_f32_32x32x8_f16 a[0:15], v[0:1], v[2:3], a[0:15]\n\ts_cbranch_scc1 .LBB0_1\n\ts_endpgm\n"
    )
    assert _hot_loop(listing, GCN)[1] == ["ds_read_b128", "v_mfma_f32_32x32x8_f16", "s_cbranch_scc1"]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ("STACK:0 SHARED:0 LOCAL:0", True),
        ("STACK:16 SHARED:0 LOCAL:0", False),
        ("STACK:0 SHARED:0 LOCAL:8", False),
        ("nothing known", False),
    ],
)
def test_a_kernel_is_not_disassembled_only_where_it_cannot_spill(usage: str, expected: bool) -> None:
    assert stackless(f" Function some_kernel:\n  REG:132 {usage} CONSTANT[0]:1064") is expected


def test_static_bound_counts_issue_and_shared_memory() -> None:
    """Four HMMA of 4096 operations on four warps take 32 cycles of an A100's tensor cores."""
    flops = 4 * 4096 * 4
    assert static_bound(Code(64, 0, ["HMMA.16816.F32"] * 4, []), "sm_80", 4, flops) == 1
    assert static_bound(Code(64, 0, ["HMMA.16816.F32"] * 4 + ["FADD"] * 60, []), "sm_80", 4, flops) == 0.5
    assert static_bound(Code(64, 0, ["HMMA.16816.F32"] * 4 + ["LDSM.16.M88.4"] * 4, []), "sm_80", 4, flops) == 0.5
    assert static_bound(Code(64, 0, ["HMMA.16816.F32"] * 8, []), "sm_80", 4, flops) == 0.5
