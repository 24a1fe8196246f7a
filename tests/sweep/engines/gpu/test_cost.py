"""The paper model of GPU speed: its limits, its dispatch, and that docs/kernels.md says what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsecode.sweep.engines.gpu.cost import (
    BOUNDS,
    DEVICES,
    EXPECTED,
    MASK_BOUNDS,
    MOST,
    device_named,
    predict,
    prefers_fused,
    prefers_sparse,
    sparse_density,
)

A100, H100, B200, MI300X = DEVICES
DOCS = (Path(__file__).parents[4] / "docs" / "kernels.md").read_text()
BIG = [4096] * 16


def test_no_way_beats_the_hardware() -> None:
    """Every prediction takes longer than its products at peak and its parameters at full bandwidth."""
    for device in DEVICES:
        for D in (32, 64, 128, 256, 512):
            found = predict(device, D, BIG, 8192)
            least = 1e3 * 10 * 8192 * sum(BIG) * D / (device.tensor * 1e12)
            moved = 1e3 * sum(BIG) * D * 60 / (device.memory * 1e12)
            assert found.products > max(least, moved)
            assert found.eager > found.products
            assert found.fused is None or found.fused > 1.2 * least
            assert found.sparse is None or found.sparse > max(least / 5, moved)


def test_time_is_linear_in_the_sweep_once_it_is_large() -> None:
    for device in DEVICES:
        one, two = (predict(device, 128, [4096] * n, 8192) for n in (32, 64))
        assert one.fused is not None
        assert two.fused is not None
        assert two.fused / one.fused == pytest.approx(2)
        assert two.products / one.products == pytest.approx(2)


def test_dispatch() -> None:
    """Fused up to 128 on Hopper and later, products above 256 everywhere."""
    for arch in ("sm_90", "sm_100", "gfx942"):
        assert all(prefers_fused(arch, D, BIG, 8192) for D in (17, 32, 64, 128))
    assert prefers_fused("sm_80", 64, BIG, 8192)
    assert not prefers_fused("sm_80", 128, BIG, 8192)
    assert not any(prefers_fused(device.arch, 512, BIG, 8192) for device in DEVICES)
    assert not prefers_fused("sm_90", 256, BIG, 8192)


def test_sparse_path_by_device() -> None:
    """At 20 active codes of 4096 lists pay where the dense ways are slow (A100; MI300X at 256), not on H100; with fewer
    of a larger dictionary everywhere. None above D = 256.
    """
    for D in (64, 128):
        assert prefers_sparse("sm_80", D, BIG, 8192)
    assert prefers_sparse("gfx942", 256, BIG, 8192)
    for D in (32, 64, 128, 256):
        assert not prefers_sparse("sm_90", D, BIG, 8192)
    for device in DEVICES:
        assert predict(device, 256, [32768] * 2, 8192, l0=20).prefers_sparse
        assert not prefers_sparse(device.arch, 512, BIG, 8192)


def test_lists_are_taken_up_to_where_they_pay() -> None:
    """At the share of active codes that the model names, the work on lists takes as long as a dense step."""
    for device in DEVICES:
        for D in (64, 128, 256):
            share = sparse_density(device.arch, D, BIG, 8192)
            assert EXPECTED < share <= MOST
            none, most = (predict(device, D, BIG, 8192, l0=l0) for l0 in (0, share * 4096))
            assert none.sparse is not None
            assert most.sparse is not None
            if share < MOST:
                assert most.sparse - none.sparse < none.dense < 1.5 * (most.sparse - none.sparse)
        assert sparse_density(device.arch, 512, BIG, 8192) == 0


def test_devices_are_found_by_the_drivers_name() -> None:
    assert device_named("NVIDIA H100 80GB HBM3", "sm_90") is H100
    assert device_named("AMD Instinct MI300X", "gfx942") is MI300X
    assert device_named("NVIDIA GeForce RTX 4090", "sm_80") is None


def test_bounds_are_those_of_the_gate_table() -> None:
    """The model's bounds stand in docs/kernels.md, row by row: the decoder's and encoder's launches at 256 averaged."""
    masks: dict[tuple[str, int], float] = {}
    rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in DOCS.splitlines() if "| " in line]
    seen: dict[tuple[str, int], tuple[list[float], list[float]]] = {}
    for cells in rows:
        if len(cells) == 11 and cells[0] == "masks":
            masks[cells[1], int(cells[2])] = float(cells[10])
        if len(cells) == 11 and cells[0].split(",")[0] in ("forward", "backward") and cells[2].isdigit():
            if any(word in cells[0] for word in ("bf16", "fp32", "masked")):
                continue
            forward, backward = seen.setdefault((cells[1], int(cells[2])), ([], []))
            (forward if cells[0] == "forward" else backward).append(float(cells[10]))
    assert masks.keys() == MASK_BOUNDS.keys()
    assert masks == pytest.approx(MASK_BOUNDS, abs=0.03)
    assert seen.keys() == BOUNDS.keys()
    for key, (forward, backward) in seen.items():
        assert BOUNDS[key] == pytest.approx((forward[0], sum(backward) / len(backward)), abs=0.03), key


def test_docs_table_is_the_models() -> None:
    for device in DEVICES:
        found = predict(device, 128, BIG, 8192)
        row = " | ".join(f"{one:.2f}" for one in (found.eager, found.fused, found.products, found.sparse) if one)
        assert f"| {device.name} | 16 of 4096 | 128 | {row} |" in DOCS
