"""Plants each bug of kernel_mutants.py and requires that a check catches it; run by test_kernels_interpreter.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import interpreter_shim
from kernel_checks import CHECKS, Kernels
from kernel_far_checks import FAR_CHECKS
from kernel_mutants import MUTANTS, Mutant
from kernel_sparse_checks import SPARSE_CHECKS


def caught_by(mutant: Mutant, folder: Path) -> str | None:
    """The check that fails on the mutant, and how; None where all pass."""
    kernels = Kernels().with_mutant(mutant.module, mutant.load(folder))
    checks = SPARSE_CHECKS if mutant.module in ("lists", "sparse") else CHECKS + FAR_CHECKS
    # Those named for the kernel first: most mutants fall to them at once.
    for check in sorted(checks, key=lambda check: mutant.module not in check.__name__):
        try:
            check(kernels)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            return f"{check.__name__}: {reason}"
        finally:
            interpreter_shim.forget()
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}-{mutant.bug.replace(' ', '-')}")
def test_bug_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    found = caught_by(mutant, tmp_path)
    assert found is not None
    print(f"CAUGHT {found}")


def test_enough_bugs_in_every_kernel() -> None:
    assert len(MUTANTS) >= 15
    assert {mutant.module for mutant in MUTANTS} == set(Kernels().modules)
