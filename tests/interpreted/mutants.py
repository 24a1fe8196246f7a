"""Plants each bug of kernel_mutants.py and requires that a check catches it; run by kernels/test_interpreter.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_checks import Kernels
from kernel_mutants import MUTANTS, Mutant, caught_by


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}-{mutant.bug.replace(' ', '-')}")
def test_bug_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    found = caught_by(mutant, tmp_path)
    assert found is not None
    print(f"CAUGHT {found}")


def test_enough_bugs_in_every_kernel() -> None:
    assert len(MUTANTS) >= 15
    assert {mutant.module for mutant in MUTANTS} == set(Kernels().modules)
