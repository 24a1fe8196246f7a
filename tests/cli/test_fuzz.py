"""Nothing that a user can type gives a traceback: every command with every option and all kinds of values.

The examples are drawn from what each option is for and from what it is not, always the same ones. Whatever happens, the
command ends with a documented exit code and, where it fails, one line that says why. Work that has begun is
interrupted where it first tells its progress, as if by Ctrl-C.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sparsecode import watch
from sparsecode.cli import COMMANDS, main
from sparsecode.corpus.sources import FileSource, Sources
from sparsecode.interop import TARGETS, save_dictionary
from sparsecode.pipeline import progress
from sparsecode.pipeline.train_gpt import train_gpt
from sparsecode.store import DatasetWriter
from sparsecode.sweep import Dictionary

EXIT_CODES = {0, 1, 2, 3, 130}  # done, a check failed, wrong usage, data or machine, interrupted
EXAMPLES = 12  # for each command
HOOK = "blocks.1.mlp.hook_post"

NUMBERS = [
    "0", "1", "-1", "2", "3.5", "0.5", "64", "1e3", "4k", "1_0", "none", "", " ", "x", "nan", "inf", "-inf", "1e999",
    "9" * 30, "-0", "0x10", "٣", "1e-320", "1,2", "--",
]  # fmt: skip
LISTS = [
    "4", "4,8", "4-16", "2x", "0.5x-2x", "1e-2", "1e-4:1e-2:3", "", ",", "-", "4-", "8-4", "x", "0", "-3",
    "1e-4:1e-2:0", "1e-4:1e-2:nan", "4,,8", "nan", "0-5", "0,0", "mlp,resid", "neurons,pca", "pca,pca", "99999999999x",
]  # fmt: skip
TEXTS = [
    "none", "", " ", "auto", "cpu", "cuda:99", "mps", "meta", "text", HOOK, "blocks.9.hook_resid_post", "h.1", ".",
    "..", "-", "a/b", "é€", "\udcff", "%s", "{}", "a" * 300,
]  # fmt: skip
# Below the folder of a test, but for the last few.
PATHS = [
    "run", "run/gpt", "run/config.json", "run/activations", "run/dictionaries", "sae", "sae/cfg.json", "saes", "own",
    "own.json", "own.safetensors", "broken", "broken.pt", "broken.npz", "data", "data/manifest.json", "bad-data",
    "text.txt", "binary", "empty", "empty.json", "list.json", "deep.json", "set", "set/layer_0.safetensors",
    "set/config.yaml", "loop", "missing", "missing/below", "text.txt/below", "new.csv", "new.safetensors", "new.png",
    "", ".", "..", "é", "a" * 300, "\udcff", "/dev/null", "/dev/null/x", "/proc/self/mem", "~", "*",
]  # fmt: skip
INPUTS_ONLY = ["/"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with everything that commands read, dictionaries, datasets, and things that are none of these."""
    place = tmp_path_factory.mktemp("fuzz")
    (place / "text.txt").write_text(" ".join(f"number {n} and {n * n}." for n in range(300)))
    train_gpt(
        place / "run", text=(str(place / "text.txt"),), vocab_size=270, n_layer=2, n_head=2, d_model=4, context=16,
        batch_size=2, steps=1, val_tokens=32, val_fraction=0.2, device="cpu", quiet=True,
    )  # fmt: skip
    atoms = torch.nn.functional.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
    made = Dictionary(atoms, torch.zeros(8), atoms, meta={"l1": 0.1, "seed": 0, "hook_point": HOOK})
    made.save(place / "own")
    made.save(place / "run/dictionaries/n8_l1-0.1_s0")
    for name in ("sae", "saes/a", "saes/b", "broken"):
        save_dictionary(made, place / name, "saelens")
    (place / "broken/sae_weights.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    (place / "broken.pt").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    (place / "broken.npz").write_bytes(b"PK")
    for name in ("data", "bad-data"):
        writer = DatasetWriter(place / name, activation_dim=16, dtype="float32", provenance={"hook_point": HOOK},
                               shard_bytes=1 << 20, durable=False)  # fmt: skip
        with writer:
            writer.append(torch.randn(64, 16), torch.zeros(64, dtype=torch.int32))
            writer.finish()
    (place / "bad-data/manifest.json").write_text('{"format": 1, "shards": 3}')
    (place / "binary").write_bytes(bytes(range(256)) * 4)
    (place / "empty").mkdir()
    (place / "empty.json").write_text("")
    (place / "list.json").write_text('[{"text": null}, 3, "\\ud800"]')
    (place / "deep.json").write_text("[" * 5000)
    (place / "set").mkdir()
    save_file({"W_enc": atoms, "W_dec": atoms.clone(), "b_enc": torch.zeros(8), "b_dec": torch.zeros(16)},
              place / "set/layer_0.safetensors")  # fmt: skip
    (place / "set/config.yaml").write_text("model_kind: transcoder_set\nk:\n  - {\n:::\n")
    (place / "loop").symlink_to("loop")
    np.savez(place / "new.npz", a=np.zeros(3))
    return place


@pytest.fixture
def place(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to run in, without network."""
    copy = Path(shutil.copytree(original, tmp_path / "place", symlinks=True))
    monkeypatch.chdir(copy)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SPARSECODE_PRESET", raising=False)
    if "huggingface_hub.constants" in sys.modules:
        monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", True)

    # Where no text is named, all Python sources of this machine are: too many to look at again and again.
    few = Sources("Python sources", [FileSource("text.py", copy / "text.txt")], lenient=True)
    monkeypatch.setattr("sparsecode.corpus.sources.python_sources", lambda: few)
    for kind in (progress.Progress, watch.Task):  # told to the console, or to nobody with --quiet
        monkeypatch.setattr(kind, "advance", interrupting(kind.advance))
    return copy


def interrupting(plain: Callable[..., None]) -> Callable[..., None]:
    """What interrupts a command at its first progress, as Ctrl-C would."""

    def advance(self: watch.Task, amount: int, **values: str) -> None:
        if self.label not in ("compare", "match"):  # done in no time
            raise KeyboardInterrupt
        plain(self, amount, **values)

    return advance


def command_of(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert isinstance(found, click.Command)
    return found


def writes(param: click.Parameter) -> bool:
    """Whether a path is one that a command writes to."""
    return param.name in ("run", "destination", "into", "out")


def values_for(param: click.Parameter) -> st.SearchStrategy[str]:
    paths = st.sampled_from(PATHS if writes(param) else PATHS + INPUTS_ONLY)
    if isinstance(param.type, click.Path):
        return paths
    if isinstance(param.type, click.Choice):
        return st.sampled_from([*map(str, param.type.choices), "x", ""])
    shape = param.metavar or ""
    if param.name in ("text", "module", "dataset", "tokenizer", "model", "preset"):
        named = ["smoke", "default"] if param.name == "preset" else [HOOK] if param.name == "module" else []
        return st.one_of(paths, st.sampled_from([*named, "none", ""]))
    if param.name == "hf_dataset":
        return st.sampled_from(["none", "", "x/y", "a" * 300])
    if shape in ("N", "X"):
        return st.sampled_from(NUMBERS)
    return st.one_of(st.sampled_from(LISTS), st.sampled_from(NUMBERS), st.sampled_from(TEXTS))


@st.composite
def arguments(draw: st.DrawFn, name: str) -> list[str]:
    """The arguments after a command's name."""
    command = command_of(name)
    given: list[str] = []
    options = [
        param for param in command.params if isinstance(param, click.Option) and param.name not in ("help", "debug")
    ]
    wanted = draw(st.lists(st.sampled_from(options), max_size=4, unique_by=lambda option: option.name))
    needed = [option for option in options if option.required and option not in wanted]
    if draw(st.booleans()):
        wanted += needed
    for option in wanted:
        flag = draw(st.sampled_from([*option.opts, *option.secondary_opts]))
        given.append(flag)
        if not option.is_flag:
            given.append(draw(values_for(option)))
    for argument in command.params:
        if isinstance(argument, click.Argument):
            most = 3 if argument.nargs == -1 else 1
            given += draw(st.lists(values_for(argument), max_size=most, min_size=draw(st.sampled_from([0, 1]))))
    return given


def check(args: list[str]) -> int:
    """Runs a command and checks the promises in the module's docstring."""
    result = CliRunner().invoke(main, args, prog_name="sparsecode")
    told = f"sparsecode {args}\n{result.output[-2000:]}"
    unforeseen = result.exception is not None and not isinstance(result.exception, SystemExit)
    if unforeseen:
        raise AssertionError(told) from result.exception
    assert result.exit_code in EXIT_CODES, told
    assert "Traceback" not in result.output, told
    if result.exit_code:
        lines = result.stderr.splitlines()
        assert sum(line.startswith(("sparsecode: ", "Error: ")) for line in lines) == 1, told
    return result.exit_code


@pytest.mark.parametrize("name", COMMANDS)
def test_no_arguments_of_a_command_give_a_traceback(name: str, place: Path) -> None:
    few = name in ("toy", "replicate")  # they do much before they first tell their progress

    @settings(
        max_examples=EXAMPLES // 4 if few else EXAMPLES, derandomize=True, deadline=None, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip
    @given(args=arguments(name))
    def trial(args: list[str]) -> None:
        check([name, *args])

    trial()


@pytest.mark.parametrize("path", [*PATHS, *INPUTS_ONLY])
def test_no_path_gives_a_traceback(path: str, place: Path) -> None:
    for command in (
        ["info", path], ["verify", path], ["compare", path], ["compare", path, "sae"], ["eval", path, "--run", "run"],
        ["convert", path, "out", "--to", "saelens"], ["doctor", "--run", path],
        ["merge", path, "data", "--into", "merged"],
        ["info", "--run", path], ["compare", "--run", path], ["claims", "--run", path], ["report", "--run", path],
    ):  # fmt: skip
        check([*command[:1], "--", *command[1:]] if path.startswith("-") else command)


@pytest.mark.parametrize("to", TARGETS[:2])
@pytest.mark.parametrize("path", PATHS)
def test_no_destination_gives_a_traceback(path: str, to: str, place: Path) -> None:
    for source in ("sae", "saes", "run"):
        check(["convert", source, path, "--to", to])
    if to == TARGETS[0]:
        check(["merge", "data", "bad-data", "--into", path])
        check(["compare", "sae", "own", "--out", path, "-q"])


@pytest.mark.parametrize(
    "name", ["train-gpt", "harvest", "train-dicts", "eval", "baselines", "claims", "toy", "replicate"]
)
def test_a_stage_that_is_interrupted_says_that_it_resumes(name: str, place: Path) -> None:
    small = {
        "train-gpt": ["--run", "new", "--text", "text.txt", "--vocab-size", "270", "--d-model", "4", "--steps", "3"],
        "harvest": ["--layer", "1", "--rows", "64"],
        "train-dicts": ["--dataset", "data", "--run", "new", "--sizes", "4", "--samples", "64", "--batch-size", "8"],
        "eval": ["own"],
        "toy": ["--run", "new"],
        "replicate": ["--run", "new", "--preset", "smoke"],
    }
    args = small.get(name, [])
    code = check([name, *args] if "--run" in args else [name, "--run", "run", *args])
    assert code in (130, 3), "interrupted, or not yet possible in this run"
    shown = json.loads(CliRunner().invoke(main, ["info", "run", "--json"]).stdout)
    assert shown["kind"] == "run", "what was there stays readable"


def test_every_option_is_tried() -> None:
    options = [param for name in COMMANDS for param in command_of(name).params if isinstance(param, click.Option)]
    assert sum(not option.is_flag for option in options) > 100
    assert all(isinstance(values_for(option), st.SearchStrategy) for option in options if not option.is_flag)
