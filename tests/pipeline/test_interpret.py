"""The interpret stage on a small run: a GPT, dictionaries, baselines and claims that took seconds to make.

Language models are a server on this machine; no other address is ever connected to.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import oracle
from fake_endpoint import FakeEndpoint, Fault
from sparsecode import store
from sparsecode.cli import main
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.activations import TopK
from sparsecode.errors import ContextsUnknown, NotExpressible, NotRecognised, RunInvalid, SettingsDiffer, StageStale
from sparsecode.interpretation import interpreting
from sparsecode.interpretation.endpoint.budget import Price
from sparsecode.pipeline.baselines import fit_baselines
from sparsecode.pipeline.claims import check_claims
from sparsecode.pipeline.compare import compare_dicts
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.interpret import interpret_directions, load_interpretations
from sparsecode.pipeline.report import write_report
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.stale import stale
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.pipeline.train_gpt import train_gpt

D = 32
SMALL: dict[str, Any] = {"directions": 8, "rate": 0.02, "rows": 6000, "control_samples": 4000, "draws": 100}
HOOK = "blocks.2.mlp.hook_post"


def text() -> str:
    """Lines in which some words follow others, and some stand in brackets."""
    generator = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("ba", "ko", "mi", "tu", "re") for b in ("n", "rt", "ck", "ning", "x")]
    lines = []
    for _ in range(2500):
        own = [words[i] for i in generator.integers(0, len(words), 6)]
        own[2:2] = ["(self,", own[0] + ")"] if generator.random() < 0.3 else []
        lines.append(" ".join(own) + (" 42" if generator.random() < 0.2 else ""))
    return "\n".join(lines)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("interpret") / "run")
    words = run.path.parent / "text.txt"
    words.write_text(text())
    train_gpt(
        run, text=(str(words),), val_fraction=0.2, vocab_size=320, n_layer=3, n_head=2, d_model=8, d_mlp=D, context=32,
        batch_size=8, steps=20, warmup_steps=4, val_tokens=256, device="cpu", quiet=True,
    )  # fmt: skip
    harvest_activations(run, rows=12_000, device="cpu", quiet=True)
    train_dicts(
        run, sizes="32,64", seeds=2, l1="5e-3", samples=30_000, batch_size=256, warmup_steps=5, eval_rows=1000,
        engine="reference", device="cpu", threads=1, quiet=True,
    )  # fmt: skip
    compare_dicts(run, threshold=0.5, quiet=True)
    check_claims(run, sweep=False, starts=False, directions=6, features=2, shown=2, draws=100, quiet=True)
    fit_baselines(run, kinds="neurons,identity,random,pca", rows=2000, eval_rows=1000, curve_rows=200, quiet=True)
    interpret_directions(run, quiet=True, **SMALL)
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    shutil.copytree(made.path.parent, tmp_path / "copy")
    return Run(tmp_path / "copy" / "run")


def numbers(value: Any) -> Iterator[float]:
    """Every number in a JSON value."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def test_groups_scores_and_a_verdict(made: Run) -> None:
    record = load_interpretations(made)
    assert record is not None
    names = [group["name"] for group in record["groups"]]
    assert [name for name in names if name != "other features"] == [
        "found again", "neurons", "random", "pca", "untrained",
    ]  # fmt: skip
    for group in record["groups"]:
        own = [one for one in record["directions"] if one["group"] == group["name"]]
        assert len(own) == group["drawn"] <= 8
        assert group["explained"] + sum(group["left_out"].values()) == group["drawn"]
        scored = [one["scores"]["correlation"] for one in own if "scores" in one]
        if scored:
            assert group["scores"]["correlation"]["value"] == pytest.approx(np.mean(scored), abs=1e-6)
            assert group["scores"]["correlation"]["low"] <= np.mean(scored) <= group["scores"]["correlation"]["high"]
    assert record["verdict"]["verdict"] in ("higher", "partly", "not higher", "not informative", "not tested")
    assert record["missing"] == {} and record["explainer"] == "embedded"
    assert all(map(math.isfinite, numbers(record))) and "NaN" not in json.dumps(record)
    assert max(one["scores"]["correlation"] for one in record["directions"] if "scores" in one) > 0.5
    assert record["dataset_fingerprint"] == store.Dataset(made.activations_path / HOOK).fingerprint


def test_the_table_has_a_line_for_each_direction(made: Run) -> None:
    record = load_interpretations(made)
    assert record is not None
    lines = list(csv.DictReader((made.path / "interpret/directions.csv").read_text().splitlines()))
    assert len(lines) == len(record["directions"])
    for line, one in zip(lines, record["directions"], strict=True):
        assert (line["group"], line["dictionary"], line["feature"]) == (
            one["group"], one["dictionary"], str(one["feature"]),
        )  # fmt: skip
        assert line["text"] == one.get("text", "") and bool(line["left_out"]) == ("left_out" in one)
        if "scores" in one:
            assert float(line["correlation"]) == one["scores"]["correlation"]


def test_what_claim_3_shows_is_explained_in_the_report(run: Run) -> None:
    write_report(run, images=False, quiet=True)
    sections = json.loads(run.report_path.with_suffix(".json").read_text())["sections"]
    record = load_interpretations(run)
    assert record is not None
    examples = {(one["dictionary"], one["feature"]) for one in record["directions"] if one["group"] == "examples"}
    neurons = sections["top-tokens"]["neurons"]["features"]
    shown = sections["top-tokens"]["features"]["features"] if "features" in sections["top-tokens"] else []
    assert {("neurons", one["neuron"]) for one in neurons} <= examples
    assert {(one["dictionary"], one["feature"]) for one in shown} <= examples
    assert neurons and all(one["explanation"] for one in [*neurons, *shown])
    assert sections["top-tokens"]["directions"]["features"][0]["explanation"]
    own = sections["interpretation"]
    assert own["numbers"]["verdict"] == record["verdict"] and record["verdict"]["number"] in own["summary"]
    assert len(own["interpretation-groups"]["rows"]) == len(record["groups"])
    page = run.report_path.read_text()
    assert 'id="interpretation"' in page and 'class="explanation"' in page
    interpret_directions(run, force=True, quiet=True, **SMALL | {"seed": 1})
    assert list(stale(run)) == ["report"]


def test_the_same_bytes_after_a_kill(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [run.path / "interpret" / name for name in ("interpretations.json", "directions.csv")]
    before = [file.read_bytes() for file in files]

    class Killed(BaseException):
        pass

    plain, calls = interpreting.interpreted, []

    def stop(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 10:
            raise Killed
        return plain(*args)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(interpreting, "interpreted", stop)
        interpret_directions(run, force=True, quiet=True, **SMALL)
    assert not files[0].exists() and load_interpretations(run) is None
    interpret_directions(run, quiet=True)
    assert [file.read_bytes() for file in files] == before


def test_threads_change_no_explanation(run: Run) -> None:
    record = load_interpretations(run)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        interpret_directions(run, control=False, force=True, quiet=True, **SMALL)
    finally:
        torch.set_num_threads(threads)
    again = load_interpretations(run)
    assert record is not None and again is not None
    assert again["directions"] == [one for one in record["directions"] if one["group"] != "untrained"]


def test_what_it_read_may_change(run: Run) -> None:
    assert stale(run) == {}
    with pytest.raises(SettingsDiffer, match="rate"):
        interpret_directions(run, rate=0.03, quiet=True)
    fit_baselines(run, kinds="neurons,random", force=True, quiet=True)
    assert list(stale(run)) == ["interpret"]
    with pytest.raises(StageStale, match="baselines changed since; run: sparsecode interpret --force"):
        interpret_directions(run, quiet=True)
    interpret_directions(run, force=True, quiet=True)
    assert stale(run) == {}
    record = load_interpretations(run)
    assert record is not None and "pca" not in [group["name"] for group in record["groups"]]


def test_dictionaries_by_name_and_of_others(run: Run, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(48, D, generator=generator))
    Dictionary(atoms.clone(), torch.zeros(48), atoms, activation=TopK(8)).save(tmp_path / "topk")
    names = [file.stem for file in run.dictionaries_path.glob("n32*.json")]
    asked = [*names, str(tmp_path / "topk")]
    interpret_directions(run, dictionaries=asked, force=True, quiet=True, **SMALL)
    record = load_interpretations(run)
    assert record is not None
    used = {one["dictionary"] for one in record["directions"] if one["group"] in ("found again", "other features")}
    assert used <= set(names)
    features = [one for one in record["directions"] if one["group"] == "features"]
    assert {one["dictionary"] for one in features} == {str(tmp_path / "topk")} and len(features) == 8
    with pytest.raises(NotRecognised, match="nothing"):
        interpret_directions(run, dictionaries="nothing", force=True, quiet=True)
    Dictionary(torch.eye(4), torch.zeros(4), torch.eye(4)).save(tmp_path / "narrow")
    with pytest.raises(NotExpressible, match="reads activations of 4 dimensions"):
        interpret_directions(run, dictionaries=str(tmp_path / "narrow"), force=True, quiet=True)


def test_without_baselines_or_control_it_says_what_is_missing(run: Run) -> None:
    shutil.rmtree(run.path / "baselines")
    run.write_record("baselines", None)
    result = interpret_directions(run, control=False, force=True, quiet=True, **SMALL)
    assert result["verdict"] == "not tested" and "sparsecode baselines" in result["missing"]["baselines"]
    assert set(result["scores"]) <= {"found again", "other features"}


def test_activations_without_contexts_are_refused(run: Run) -> None:
    folder = run.activations_path / HOOK
    own = store.Dataset(folder)
    provenance = {key: value for key, value in own.provenance.items() if key != "context"}
    x, ids = own.read(0, own.rows), own.tokens(0, own.rows)
    shutil.rmtree(folder)
    with store.DatasetWriter(folder, activation_dim=D, dtype="float32", provenance=provenance) as writer:
        writer.append(x, ids)
        writer.finish()
    run.write_record("claims", None)
    with pytest.raises(ContextsUnknown, match="harvest it again with --force"):
        interpret_directions(run, force=True, quiet=True, **SMALL)


def test_the_command_prints_a_table_and_json_and_opens_no_socket(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    call = ["interpret", "--run", str(run.path), "--force"]
    shown = CliRunner().invoke(main, call)
    assert shown.exit_code == 0, shown.output
    record = load_interpretations(run)
    assert record is not None
    for group in record["groups"]:
        assert group["said"] in shown.stdout
    assert record["verdict"]["verdict"] in shown.stdout
    found = json.loads(CliRunner().invoke(main, [*call[:-1], "--json", "--quiet"]).stdout)
    assert found == record


def test_a_broken_record_is_reported(run: Run) -> None:
    (run.path / "interpret/interpretations.json").write_text("[]")
    with pytest.raises(RunInvalid, match="sparsecode interpret --force"):
        load_interpretations(run)


SECRETS = {"MY_KEY": "sk-mine-0123456789", "OPENAI_API_KEY": "sk-other-0123456789", "OPENAI_ORG_ID": "org-0123456789"}


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment full of secrets, in which only this machine can be connected to."""
    plain = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] == "127.0.0.1", f"a connection to {address}"
        plain(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://192.0.2.1/v1")


def asking(run: Run, server: FakeEndpoint, *more: str) -> Result:
    call = ["interpret", "--run", str(run.path), "--endpoint", server.url, "--llm", "small", "--key-env", "MY_KEY"]
    return CliRunner().invoke(main, [*call, *more])


@pytest.mark.usefixtures("loopback")
def test_a_language_model_explains_and_scores_too(
    run: Run, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    before = load_interpretations(run)
    with FakeEndpoint(oracle.anything) as server:
        shown = asking(run, server, "--force", "--scorers", "detection,fuzzing,simulation,intruder")
        assert shown.exit_code == 0, shown.output
        sent = f"{len(server.calls):,} calls to small at {server.url[7:-3]}: about "
        assert sent in shown.stderr and "excerpts of the text and explanations are sent there" in shown.stderr
        assert "price unknown" in shown.stderr
        asked = len(server.calls)
        files = {file: file.read_bytes() for file in (run.path / "interpret").iterdir()}
        assert asking(run, server, "--force").exit_code == 0 and len(server.calls) == asked, "nothing is paid for twice"
        assert {file: file.read_bytes() for file in (run.path / "interpret").iterdir()} == files
        write_report(run, images=False, quiet=True)
    record = load_interpretations(run)
    assert before is not None and record is not None and record["endpoint"] == {
        "host": server.url[7:-3], "llm": "small", "answers": asked, "left": 0,
    }  # fmt: skip
    assert [{key: own for key, own in one.items() if key != "llm"} for one in record["directions"]] == before[
        "directions"
    ]
    judged = [one for one in record["directions"] if "llm" in one]
    assert (
        len(judged)
        == sum(group["explained"] for group in record["groups"])
        == sum(group["llm"]["asked"] for group in record["groups"])
    )
    done = [one["llm"] for one in judged if "reason" not in one["llm"]]
    assert done and all(one["explanation"] == "some words" and len(one["scores"]) >= 6 for one in done)
    for group in record["groups"]:
        own = [one["llm"] for one in judged if one["group"] == group["name"]]
        assert group["llm"]["complete"] == sum("reason" not in one for one in own) > 0
        mean = np.mean([one["scores"]["detection"] for one in own if "reason" not in one])
        assert group["llm"]["scores"]["detection"]["value"] == pytest.approx(mean, abs=1e-6)
    lines = list(csv.DictReader((run.path / "interpret/directions.csv").read_text().splitlines()))
    assert {line["llm_text"] for line in lines if line["llm_detection"]} == {"some words"}
    section = json.loads(run.report_path.with_suffix(".json").read_text())["sections"]["interpretation"]
    assert len(section["interpretation-llm"]["rows"]) == len(record["groups"])
    assert {call.headers.get("authorization") for call in server.calls} == {f"Bearer {SECRETS['MY_KEY']}"}
    others = [str({**call.headers, "authorization": ""}) + call.message for call in server.calls]
    written = [file.read_text(errors="replace") for file in run.path.rglob("*") if file.is_file()]
    told = [shown.output, shown.stderr, caplog.text, *capsys.readouterr()]
    for secret in SECRETS.values():
        assert not any(secret in text for text in [*others, *written, *told])


@pytest.mark.usefixtures("loopback")
def test_a_dry_run_sends_and_writes_nothing(run: Run) -> None:
    files = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    with FakeEndpoint(oracle.anything) as server:
        shown = asking(run, server, "--dry-run", "--price", "1,2", "--budget", "5")
        found = json.loads(asking(run, server, "--dry-run", "--price", "1,2", "--json", "--quiet").stdout)
        assert shown.exit_code == 0 and not server.calls
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == files
    assert found["kept"] == 0 and found["calls"] > 50 and f"{found['calls']} calls" in shown.stdout
    for kind in ("expected", "most"):
        read, written = found["tokens"][kind]
        assert found["usd"][kind] == pytest.approx((read + 2 * written) / 1e6)
    assert found["usd"]["expected"] < found["usd"]["most"]
    without = CliRunner().invoke(main, ["interpret", "--run", str(run.path), "--dry-run"])
    assert without.exit_code == 2 and "--endpoint" in without.stderr


@pytest.mark.usefixtures("loopback")
def test_what_cannot_be_asked_is_refused_before_anything_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_interpretations(run)
    with FakeEndpoint(oracle.anything) as server:
        for more, code, words in (
            (("--llm", "none"), 2, "--llm"),
            (("--budget", "2"), 2, "price of small at 127.0.0.1"),
            (("--price", "cheap"), 2, "two numbers"),
            (("--key-env", "NO_SUCH_KEY"), 2, "NO_SUCH_KEY"),
            (("--endpoint", "http://me:secret@127.0.0.1/v1"), 2, "endpoint on 127.0.0.1"),
            (("--scorers", "guessing"), 2, "detection"),
            (("--endpoint", "https://api.openai.com/v1", "--llm", "no-such", "--budget", "1"), 2, "--price"),
        ):
            shown = asking(run, server, "--force", *more)
            assert shown.exit_code == code and words in shown.stderr and "secret" not in shown.stderr, shown.stderr
        monkeypatch.setitem(sys.modules, "openai", None)
        shown = asking(run, server, "--force", "--price", "1,1")
        assert shown.exit_code == 3 and "pip install 'sparsecode[interpret]'" in shown.stderr
        assert not server.calls and load_interpretations(run) == before


@pytest.mark.usefixtures("loopback")
def test_an_interrupted_run_ends_with_the_bytes_of_an_unbroken_one(run: Run) -> None:
    names = ("interpretations.json", "directions.csv")
    with FakeEndpoint(oracle.anything, lambda call: Fault(status=401) if call.number in (0, 90) else None) as server:
        broken = asking(run, server, "--force")
        assert broken.exit_code == 3 and "HTTP 401" in broken.stderr and len(server.calls) == 1
        assert asking(run, server).exit_code == 3 and load_interpretations(run) is None
        stopped = len(server.calls)
        assert asking(run, server).exit_code == 0
        assert 90 < stopped < len(server.calls), "those on their way are answered, no more are begun"
        answered = [call.message for call in server.calls if call.answered]
        assert len(set(answered)) == len(answered)
        files = [(run.path / "interpret" / name).read_bytes() for name in names]
        (run.path / "interpret/calls.jsonl").unlink()
        assert asking(run, server, "--force").exit_code == 0
        assert [(run.path / "interpret" / name).read_bytes() for name in names] == files


@pytest.mark.usefixtures("loopback")
def test_a_budget_is_kept_and_goes_on(run: Run) -> None:
    price = Price.parse("3,9")
    with FakeEndpoint(oracle.anything) as server:
        shown = asking(run, server, "--force", "--price", "3,9", "--budget", "0.3", "--answer-tokens", "100")
        assert shown.exit_code == 0 and "budget of $0.3000; spent before: $0.00" in shown.stderr
        assert 0.24 <= price.of(server.billed) <= 0.3
        record = load_interpretations(run)
        assert record is not None and record["endpoint"]["left"] > 0
        left = re.search(r"the budget is spent \(\$0.2.*\), ([\d,]+) calls are left", shown.stderr)
        assert left and int(left[1].replace(",", "")) == record["endpoint"]["left"]
        assert sum(group["llm"]["complete"] for group in record["groups"]) > 0
        assert asking(run, server, "--force", "--budget", "9", "--price", "3,9").exit_code == 0
        record = load_interpretations(run)
        assert record is not None and record["endpoint"] == {
            "host": server.url[7:-3], "llm": "small", "answers": len(server.calls), "left": 0,
        }  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """`transformers serve` with a model that was never trained; its address, which ends in /v1."""
    for needed in ("fastapi", "uvicorn", "accelerate"):
        pytest.importorskip(needed, reason="transformers serve wants fastapi, uvicorn and accelerate")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    chat.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    chat.save_pretrained(tmp_path / "llm")
    config = LlamaConfig(
        vocab_size=len(letters), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16384, bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(tmp_path / "llm")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


@pytest.mark.serve
@pytest.mark.usefixtures("loopback")
def test_a_real_server_that_talks_nonsense_explains_nothing(run: Run, served: str, tmp_path: Path) -> None:
    call = ["interpret", "--run", str(run.path), "--endpoint", served, "--llm", str(tmp_path / "llm"), "--key-env"]
    call += ["MY_KEY", "--answer-tokens", "16", "--scorers", "detection", "--directions", "5", "--force"]
    shown = CliRunner().invoke(main, call)
    assert shown.exit_code == 0, shown.output
    record = load_interpretations(run)
    assert record is not None and record["endpoint"]["answers"] > 20 and record["endpoint"]["left"] == 0
    judged = [one["llm"] for one in record["directions"] if "llm" in one]
    assert judged and all(one["reason"] and "text" not in one for one in judged), judged
    files = {name: (run.path / "interpret" / name).read_bytes() for name in ("interpretations.json", "calls.jsonl")}
    assert CliRunner().invoke(main, call).exit_code == 0
    assert {name: (run.path / "interpret" / name).read_bytes() for name in files} == files, "nothing is asked twice"
