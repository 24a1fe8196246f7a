"""What recurs over seeds: counts, floors, orphans and calibration, on planted truths and against brute force."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch.nn.functional import normalize

from fake_run import L1, D, make_fake_run
from planted_features import planted
from sparsecode.cli import main
from sparsecode.comparison import Comparison, chance, compare
from sparsecode.comparison.members import member_of
from sparsecode.comparison.seeds import calibration, floor, groups_by_seed, orphans
from sparsecode.dictionary import Dictionary
from sparsecode.sweep import dictionary_name


def test_groups_differ_in_their_seed_alone() -> None:
    def member(size: int, l1: float, seed: int | None) -> object:
        atoms = normalize(torch.randn(size, 8))
        meta = {"l1": l1} | ({} if seed is None else {"seed": seed})
        return member_of(Dictionary(atoms, torch.zeros(size), atoms, meta=meta), f"{size} {l1} {seed}")

    kinds = [(4, 0.1, 1), (4, 0.1, 0), (8, 0.1, 0), (4, 0.2, 0), (4, 0.2, 5), (4, 0.1, None)]
    assert groups_by_seed([member(*one) for one in kinds]) == [[1, 0], [3, 4]]  # type: ignore[misc]


def test_floors_are_clopper_and_pearsons() -> None:
    for others in (3, 7, 95):
        assert floor(others, others) == pytest.approx(0.05 ** (1 / others))
    assert floor(0, 7) == 0
    p, n, c = floor(4, 9), 9, 4
    tail = sum(
        float(torch.exp(torch.lgamma(torch.tensor(n + 1.0)) - torch.lgamma(torch.tensor(i + 1.0))
                        - torch.lgamma(torch.tensor(n - i + 1.0)))) * p**i * (1 - p) ** (n - i)
        for i in range(c, n + 1)
    )  # fmt: skip
    assert tail == pytest.approx(0.05, abs=1e-5)


def test_orphans_and_calibration_equal_brute_force() -> None:
    S = 5
    found = (torch.rand(300, S, generator=torch.Generator().manual_seed(0)) < torch.linspace(0, 1, 300)[:, None]).long()
    counts = torch.bincount(found.sum(1), minlength=S + 1).tolist()
    for k in range(2, S + 2):
        chosen = [found[:, list(some)].sum(1) == 0 for some in combinations(range(S), k - 1)]
        assert orphans(counts)[k - 2] == pytest.approx(float(torch.stack(chosen).double().mean()))
    pairs = [
        (float(found[i].sum() - found[i, j]) / (S - 1), float(found[i, j])) for i in range(300) for j in range(S)
    ]  # predicted by the others, and whether it was found
    own = calibration(counts)
    assert own.brier == pytest.approx(sum((p - hit) ** 2 for p, hit in pairs) / len(pairs))
    for row in own.rows:
        those = [hit for p, hit in pairs if abs(p - row.predicted) < 1e-9]
        assert row.features == len(those) and row.found == pytest.approx(sum(those) / len(those))


def test_stability_predicts_a_seed_that_was_left_out() -> None:
    truth = planted(truths=200, size=256, dictionaries=24, dim=64, seed=3)
    found = compare(truth.dictionaries(), threshold=0.8)
    assert found.contents.by_seed is not None
    (group,) = found.contents.by_seed
    assert len(group.seeds) == 24 and group.calibration is not None
    assert group.calibration.slope == pytest.approx(1, abs=0.05)
    # A perfect prediction would still be off by p (1 - p).
    least = sum(float(p * (1 - p)) for held in truth.held for p in truth.presence[held[held >= 0]])
    assert group.calibration.brier == pytest.approx(least / group.features, abs=0.01)


def test_every_share_has_its_chance_level_in_both_dimensions() -> None:
    # Atoms that keep to 8 of 64 dimensions find each other by chance there, as the second level says.
    generator = torch.Generator().manual_seed(1)
    made = []
    for seed in range(3):
        atoms = torch.zeros(64, 64)
        atoms[:, :8] = normalize(torch.randn(64, 8, generator=generator))
        made.append(Dictionary(atoms, torch.zeros(64), atoms, meta={"l1": 0.1, "seed": seed}))
    found = compare(made, threshold=0.7)
    assert found.contents.by_seed is not None
    (group,) = found.contents.by_seed
    whole, used = group.chance
    assert whole.dimensions == 64 and used.dimensions == pytest.approx(8, rel=0.15)
    share = sum(c * n for c, n in enumerate(group.found)) / (2 * group.features)
    assert whole.share < 1e-6 and share == pytest.approx(used.share, abs=0.1)
    assert "in used dim." in found.table()


def test_a_run_says_what_recurs_by_seed(tmp_path: Path) -> None:
    run, _ = make_fake_run(tmp_path / "run", sizes=(16, 32))
    result = CliRunner().invoke(main, ["compare", "--run", str(run.path), "--force"])
    assert result.exit_code == 0, result.output
    assert "by seed" in result.output
    found = Comparison.load(run.comparison_path)
    assert found.contents.by_seed is not None
    assert [one.dictionaries for one in found.contents.by_seed] == [
        [dictionary_name(size, L1, seed) for seed in (0, 1)] for size in (16, 32)
    ]
    name = dictionary_name(32, L1, 0)
    tensors = found.tensors
    live, own = tensors[f"{name}.live"].bool(), tensors[f"{name}.by_seed"]
    other = found.cosine(name, dictionary_name(32, L1, 1)) > 0.9
    assert torch.equal(own.bool(), other)
    group = found.contents.by_seed[1]
    assert group.found[1] >= int(other[live].sum()) > 0 and group.chance[0].dimensions == D
    entry = next(one for one in found.entries if one.name == name)
    assert entry.alignment is not None and entry.alignment.mean == pytest.approx(1, abs=1e-5)


def test_effective_dimension_is_that_of_random_directions() -> None:
    atoms = normalize(torch.randn(500, 40, generator=torch.Generator().manual_seed(2)))
    assert chance.effective_dimension(atoms) == pytest.approx(40, rel=0.02)
    assert chance.effective_dimension(atoms[:1]) == 40
    assert chance.participation_ratio(torch.ones(7)) == pytest.approx(7)
