"""Several layers in one dictionary, and transcoders, through train-dicts and what reads its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from sparsecode import store
from sparsecode.cli import main
from sparsecode.errors import InvalidArgument, InvalidSetting, SettingsDiffer
from sparsecode.interop import load_dictionary, save_dictionary
from sparsecode.pipeline import training
from sparsecode.pipeline.claims import check_claims
from sparsecode.pipeline.config import HarvestConfig
from sparsecode.pipeline.opening import open_stage
from sparsecode.pipeline.report import write_report
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.stale import stale
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.sweep import Dictionary
from stopping import Stopped, StoppingEngine, outcome

HOOKS, WIDTHS = ("blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post", "blocks.2.mlp.hook_post"), [12, 8, 10]
ROWS = 4000
SMALL: dict[str, Any] = {
    "sizes": "16,24", "kind": ("relu l1=3e-2", "batchtopk k=3"), "batch_size": 128, "samples": 128 * 40, "seeds": 2,
    "warmup_steps": 8, "eval_rows": 500, "log_every": 7, "save_every": 5, "device": "cpu", "threads": 1, "quiet": True,
    "engine": "cpu",
}  # fmt: skip


def values() -> list[torch.Tensor]:
    """Three layers of common codes, each with its own directions, scale and mean; the third is partly linear."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(ROWS, 20, generator=generator) * (torch.rand(ROWS, 20, generator=generator) < 0.15)
    found = []
    for width, scale in zip(WIDTHS, (1.0, 20.0, 3.0), strict=True):
        found.append(scale * (codes @ torch.randn(20, width, generator=generator) + 0.1))
    found[2] += found[0] @ torch.randn(WIDTHS[0], WIDTHS[2], generator=generator)
    return found


def write(folder: Path, hook: str, x: torch.Tensor, tokens: int = 0, **provenance: Any) -> store.Dataset:
    about = {"hook_point": hook, "model_fingerprint": "m", "tokens_fingerprint": "t", "context": 8} | provenance
    with store.DatasetWriter(folder, activation_dim=x.shape[1], dtype="float32", provenance=about) as writer:
        writer.append(x, np.arange(tokens, tokens + len(x), dtype=np.int32))
        return writer.finish()


def harvested(path: Path) -> Path:
    run = Run(path)
    for hook, x in zip(HOOKS, values(), strict=True):
        with open_stage(run, f"harvest/{hook}", HarvestConfig(hook=hook)) as stage:
            dataset = write(Path(run.activations_path / hook), hook, x)
            stage.finish({"hook_point": hook, "fingerprint": dataset.fingerprint})
    return path


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers side by side, trained and compared."""
    path = harvested(tmp_path_factory.mktemp("layers") / "run")
    train_dicts(path, hook=list(HOOKS), **SMALL)
    assert called("compare", "--run", path, "--quiet").exit_code == 0
    return path


@pytest.fixture(scope="module")
def transcoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = harvested(tmp_path_factory.mktemp("transcoders") / "run")
    train_dicts(path, hook=HOOKS[0], target=HOOKS[2], skip=True, **SMALL)
    return path


def called(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def dictionaries(run: Path) -> dict[str, Dictionary]:
    names = Run(run).config()["stages"]["train-dicts"]["result"]["dictionaries"]
    return {name: Dictionary.load(run / "dictionaries" / name) for name in names}


def fvu(found: Dictionary, x: torch.Tensor, target: torch.Tensor, scale: torch.Tensor | float) -> float:
    wrong, spread = (found.reconstruct(x) - target) / scale, (target - target.mean(0)) / scale
    return float(wrong.square().sum() / spread.square().sum())


def test_layers_stand_side_by_side_each_on_its_own_scale(layers: Path) -> None:
    held = torch.cat(values(), 1)[-500:]
    for name, found in dictionaries(layers).items():
        assert found.activation_dim == sum(WIDTHS)
        assert isinstance(found.scale, torch.Tensor)
        scales = [float(part[0]) for part in torch.split(found.scale, WIDTHS)]
        assert len(set(scales)) == 3
        assert len(set(found.scale.tolist())) == 3
        assert found.meta["hook_point"] == " + ".join(HOOKS)
        torch.testing.assert_close(found.W_dec.norm(dim=1), torch.ones(found.dict_size))
        norms = [found.features[f"norm.{hook}"] for hook in HOOKS]
        for norm, part in zip(norms, torch.split(found.W_dec, WIDTHS, 1), strict=True):
            assert torch.equal(norm, part.norm(dim=1))
        metrics = found.meta["metrics"]
        assert sum(metrics["layers"].values()) == pytest.approx(1)
        assert 1 < metrics["effective_layers"] <= 3
        assert metrics["fvu"] == pytest.approx(fvu(found, held, held, found.scale), rel=1e-3), name
        assert metrics["fvu"] < 1


def test_every_layer_counts_alike(layers: Path) -> None:
    """Their raw scales differ by a factor of 20."""
    for found in dictionaries(layers).values():
        assert min(found.meta["metrics"]["layers"].values()) > 0.15


def test_a_transcoder_writes_the_other_layer(transcoders: Path) -> None:
    x, _, target = (part[-500:] for part in values())
    for name, found in dictionaries(transcoders).items():
        assert found.transcoder
        assert (found.activation_dim, found.output_dim) == (WIDTHS[0], WIDTHS[2])
        assert (found.meta["hook_point"], found.meta["hook_point_out"]) == (HOOKS[0], HOOKS[2])
        assert found.W_skip is not None
        metrics = found.meta["metrics"]
        assert metrics["fvu"] == pytest.approx(fvu(found, x, target, 1.0), rel=1e-3), name
        mse = float((found.reconstruct(x) - target).square().mean())
        assert metrics["mse"] * float(values()[2].var(0, correction=0).mean()) == pytest.approx(mse, rel=1e-3)


def test_the_linear_part_helps(transcoders: Path, tmp_path: Path) -> None:
    path = harvested(tmp_path / "run")
    train_dicts(path, hook=HOOKS[0], target=HOOKS[2], **SMALL)
    without = dictionaries(path)
    for name, found in dictionaries(transcoders).items():
        assert found.meta["metrics"]["fvu"] < without[name].meta["metrics"]["fvu"]
        assert without[name].W_skip is None


def test_the_engines_agree(tmp_path: Path) -> None:
    found = []
    for engine in ("cpu", "reference"):
        path = harvested(tmp_path / engine)
        train_dicts(path, hook=HOOKS[0], target=HOOKS[2], **SMALL | {"engine": engine})
        found.append([one.meta["metrics"]["fvu"] for one in dictionaries(path).values()])
    assert found[0] == pytest.approx(found[1], rel=1e-2)


@pytest.mark.parametrize("stop", [3, 17])
@pytest.mark.parametrize("more", [{"hook": ",".join(HOOKS[:2])}, {"hook": HOOKS[0], "target": HOOKS[1], "skip": True}])
def test_a_stopped_training_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, more: dict[str, Any]
) -> None:
    settings = SMALL | {"engine": "reference"} | more
    whole, path = harvested(tmp_path / "whole"), harvested(tmp_path / "run")
    train_dicts(whole, **settings)
    engine = StoppingEngine()
    engine.stop = stop
    with monkeypatch.context() as patch:
        patch.setattr(training, "choose_engine", lambda *_args, **_options: engine)
        with pytest.raises(Stopped):
            train_dicts(path, **settings)
    train_dicts(path, **settings)
    assert outcome(path) == outcome(whole)


def test_what_is_not_aligned_is_refused(tmp_path: Path) -> None:
    x = values()[0]
    first = write(tmp_path / "a", "a", x)
    store.check_aligned([first, write(tmp_path / "b", "b", values()[1])])
    with pytest.raises(SettingsDiffer, match="rows 3999, not 4000"):
        store.check_aligned([first, write(tmp_path / "c", "c", x[:-1] + 1)])
    with pytest.raises(SettingsDiffer, match="tokens_fingerprint 'u', not 't'"):
        store.check_aligned([first, write(tmp_path / "d", "d", x + 1, tokens_fingerprint="u")])
    with pytest.raises(SettingsDiffer, match="other tokens in rows 0 to 4000"):
        store.check_aligned([first, write(tmp_path / "e", "e", x + 1, tokens=1)])
    with pytest.raises(InvalidArgument, match="holds the same rows"):
        store.check_aligned([first, store.Dataset(tmp_path / "a")])
    with pytest.raises(SettingsDiffer, match="not of the same tokens"):
        train_dicts(tmp_path / "run", dataset=str(tmp_path / "a"), target=str(tmp_path / "d"), **SMALL)


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    path = harvested(tmp_path / "run")
    with pytest.raises(InvalidSetting, match="--skip is for transcoders"):
        train_dicts(path, hook=HOOKS[0], skip=True, **SMALL)
    for more in ({"tied": True}, {"kind": ("topk k=2 aux=1/32",)}):
        with pytest.raises(InvalidSetting, match="no tied weights, and no loss of dead features"):
            train_dicts(path, hook=HOOKS[0], target=HOOKS[1], **SMALL | more)
    with pytest.raises(InvalidSetting, match="--order windowed takes one dataset"):
        train_dicts(path, hook=HOOKS[0], target=HOOKS[1], order="windowed", **SMALL)
    with pytest.raises(InvalidSetting, match="several hook points were harvested"):
        train_dicts(path, target=HOOKS[1], **SMALL)


def test_a_harvest_done_again_makes_them_stale(tmp_path: Path) -> None:
    path = harvested(tmp_path / "run")
    few = SMALL | {"samples": 256, "sizes": "16", "seeds": 1}
    train_dicts(path, hook=HOOKS[0], target=HOOKS[2], **few)
    run = Run(path)
    assert stale(run) == {}
    with open_stage(run, f"harvest/{HOOKS[2]}", HarvestConfig(hook=HOOKS[2]), force=True) as stage:
        stage.finish({"hook_point": HOOKS[2], "fingerprint": "another"})
    assert stale(run)["train-dicts"].reason == f"harvest/{HOOKS[2]} changed since"


def test_the_report_says_where_atoms_lie(layers: Path) -> None:
    write_report(layers, quiet=True, images=False)
    page = (layers / "report.html").read_text()
    assert "Where the atoms of each dictionary lie" in page
    assert HOOKS[1] in page


def test_claims_that_read_activations_are_not_tested(layers: Path, transcoders: Path) -> None:
    for path in (layers, transcoders):
        assert called("compare", "--run", path, "--quiet").exit_code == 0
        told = check_claims(path, quiet=True, sweep=False, starts=False)["not_tested"]
        assert any("this is for those of one hook point" in reason for reason in told.values())


def test_info_says_what_they_are(layers: Path, transcoders: Path) -> None:
    name = next(iter(dictionaries(transcoders)))
    assert HOOKS[2] in called("info", transcoders / "dictionaries" / name, "--json").stdout
    shown = called("info", layers / "dictionaries" / name, "--json").stdout
    assert " + ".join(HOOKS) in shown
    assert len(shown) < 4000


def test_they_go_to_saelens(layers: Path, transcoders: Path, tmp_path: Path) -> None:
    both = torch.cat(values(), 1)[:50]
    for path, x in ((layers, both), (transcoders, values()[0][:50])):
        for name, found in dictionaries(path).items():
            save_dictionary(found, tmp_path / path.parent.name / name, "saelens")
            copy = load_dictionary(tmp_path / path.parent.name / name)
            torch.testing.assert_close(copy.encode(x), found.encode(x), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(copy.reconstruct(x), found.reconstruct(x), rtol=1e-4, atol=1e-3)
