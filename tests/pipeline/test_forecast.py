"""The forecast of a replication: budgets as given, the rest by rate, with floors for slow machines."""

from __future__ import annotations

from typing import Any

import pytest

from sparsecode.pipeline.config import STAGES
from sparsecode.pipeline.forecast import measured_speed, seconds
from sparsecode.pipeline.preset import load_preset
from sparsecode.pipeline.settings import StageConfig


def configs(changes: dict[str, dict[str, Any]] | None = None, preset: str = "default") -> dict[str, StageConfig]:
    chosen = load_preset(preset)
    return {stage: chosen.stage(stage).changed(**(changes or {}).get(stage, {})) for stage in STAGES}


def planned(config: Any) -> float:
    """Minutes that a stage's settings give it."""
    return float(sum(getattr(config, name, None) or 0.0 for name in ("minutes", "start_minutes")))


def test_a_default_run_is_its_budgets_and_half_a_minute() -> None:
    own = configs()
    budgets = 60 * sum(map(planned, own.values()))
    assert budgets + 20 < sum(seconds(stage, own) for stage in own) < budgets + 90


def test_a_slow_machine_takes_its_budgets_until_its_floors_take_longer() -> None:
    own = configs()
    for stage in ("train-gpt", "train-dicts", "claims", "toy"):
        minutes = 60 * planned(own[stage])
        assert minutes < seconds(stage, own, 0.5) < minutes + 60, "as planned at half the speed"
        assert seconds(stage, own, 0.005) > 2 * minutes


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("train-gpt", {"minutes": None, "steps": 100}),
        ("train-gpt", {"minutes": 3.0, "steps": 100}),
        ("harvest", {"rows": 10_000_000}),
        ("train-dicts", {"minutes": None, "samples": 1_000_000}),
        ("train-dicts", {"minutes": 2.0, "samples": 1_000_000}),
        ("train-dicts", {"minutes": None, "epochs": 2.0}),
        ("claims", {"minutes": None, "samples": 100_000, "starts": False}),
        ("claims", {"sweep": False, "starts": False}),
        ("claims", {"sweep": False, "start_minutes": None, "start_samples": 100_000}),
        ("toy", {"minutes": None, "steps": 100}),
        ("baselines", {}),
        ("interpret", {}),
        ("report", {}),
        ("compare", {}),
    ],
)
def test_work_that_is_counted_takes_twice_as_long_at_half_the_speed(stage: str, changes: dict[str, Any]) -> None:
    own = configs({stage: changes})
    assert seconds(stage, own, 0.5) == pytest.approx(2 * seconds(stage, own))
    assert seconds(stage, own) < 200


def test_the_rate_seen_is_that_of_the_work_done() -> None:
    own = configs()
    result = {"tokens_seen": 15_900_000}
    assert measured_speed("train-gpt", own, result, 200.0) == pytest.approx(1.0, rel=0.05)
    assert measured_speed("train-gpt", own, result, 2000.0) == pytest.approx(0.1, rel=0.05)
    sweep = {"samples": 13_200_000, "activation_dim": 128}
    assert measured_speed("train-dicts", own, sweep, 113.0) == pytest.approx(1.0, rel=0.01)
    assert measured_speed("compare", own, {}, 1.0) is None
    assert measured_speed("train-gpt", own, {}, 100.0) is None
    assert measured_speed("train-gpt", own, result, 3.0) is None, "mostly its start"


def test_larger_models_and_sweeps_take_longer() -> None:
    counted: dict[str, dict[str, Any]] = {"train-gpt": {"minutes": None}, "train-dicts": {"minutes": None}}
    small, large = configs(counted), configs(counted | {"train-gpt": {"minutes": None, "n_layer": 12, "d_model": 64}})
    assert seconds("train-gpt", large) > 2 * seconds("train-gpt", small)
    assert seconds("train-dicts", large) == pytest.approx(2 * seconds("train-dicts", small), rel=0.05), "256 wide"
    assert seconds("train-gpt", configs(preset="paper")) > 86_400
