"""A browser's folder of a fake run: what it holds, that it resumes, and what Chromium makes of it from a disk."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fake_run import FakeDataset, dictionary, make_fake_run
from sparsecode.browser import browsing
from sparsecode.browser import folder as files
from sparsecode.browser.browsing import BASELINE, BrowseSettings, Shown, browse
from sparsecode.browser.effects import Effects
from sparsecode.browser.gather import BEFORE, FULL, gather
from sparsecode.browser.serve import server

CHROMIUM = shutil.which("chromium")
SETTINGS = BrowseSettings(contexts=5)
# Features that fire: those that hold a true one.
LIVE, ALSO = (dictionary(64, 0)[1] >= 0).nonzero().flatten()[:2].tolist()
ABOUT = {
    "subtitle": "Features of a test.", "hook": "blocks.2.mlp.hook_post", "component": "neuron", "labels": "by hand",
    "effects": {"direct": "by hand"}, "no_effects": "", "model": "gpt",
}  # fmt: skip
HOSTILE: list[Any] = [
    "</script><script>parent.postMessage('broken out', '*')</script>",
    "<img src=x onerror=\"parent.postMessage('broken out', '*')\">",
    "\0", "\u202egnirts", "\ud800", "x" * 10_000, "\"');alert(1)//", "&lt;b&gt;", [240, 159], [152, 128], "\n", " ",
]  # fmt: skip


def table(size: int) -> list[Any]:
    return [HOSTILE[i] if i < len(HOSTILE) else f" word{i}" for i in range(size)]


def shown() -> dict[str, Shown]:
    return {
        "n64": Shown(dictionary(64, 0)[0], labels={LIVE: ("<b>bold</b> & hostile", 0.5), ALSO: ("plain words", None)}),
        "n32 <i>": Shown(dictionary(32, 1)[0]),
        "neurons": Shown(dictionary(16, 1)[0], BASELINE),
    }


def effects(atoms: torch.Tensor, advance: Any) -> Effects:
    ids = torch.arange(10).expand(len(atoms), -1)
    values = torch.arange(10, 0, -1.0).expand(len(atoms), -1)
    return Effects((ids, values), (ids, -values))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    _, made = make_fake_run(tmp_path_factory.mktemp("data") / "run", sizes=(16,), seeds=(0,))
    return made


@pytest.fixture(scope="module")
def made(dataset: FakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "browse"
    ids = dataset.ids.copy()
    ids[::7] = [i % len(HOSTILE) for i in range(len(ids[::7]))]
    ids[3::14], ids[4::14] = 8, 9  # the halves of a character
    own = FakeDataset(dataset.activations, ids, dataset.provenance)
    size = int(ids.max()) + 1
    browse(folder, own, table(size), shown(), SETTINGS, ABOUT, effects={"direct": effects})
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_lists_and_features_are_those_of_the_dictionaries(made: Path) -> None:
    run = files.read(made, "run")
    assert [one["name"] for one in run["dictionaries"]] == list(shown())
    for about in run["dictionaries"]:
        own = shown()[about["name"]].dictionary
        columns = files.read(made, f"{about['slug']}/list-0")["columns"]
        assert columns["feature"] == list(range(own.dict_size)) and about["shown"] == own.dict_size
        shards = [files.read(made, f"{about['slug']}/{part:04d}") for part in range(-(-own.dict_size // files.SHARD))]
        records = [record for shard in shards for record in shard]
        assert [record["f"] for record in records] == columns["feature"]
        for record, peak, top in zip(records, columns["peak"], columns["top"], strict=True):
            for row, code, before, ids, strengths in [one for band in [record["s"], *record["b"]] for one in band]:
                assert len(bytes.fromhex(strengths)) == len(ids) > before <= BEFORE
                assert code <= peak * 1.001 and bytes.fromhex(strengths)[before] == pytest.approx(
                    FULL * code / peak, abs=1
                )
                assert row >= 0
            peaks = [ids[before] for _, _, before, ids, _ in record["s"]]
            assert top == list(dict.fromkeys(peaks))[:3]
            assert len(record["o"]) == len(about["others"]) == 2
    assert run["dictionaries"][0]["among"] == 1, "baselines do not count as where features are found again"


def test_the_same_settings_give_the_same_bytes_and_a_kill_is_gone_on_from(
    dataset: FakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(folder: Path) -> None:
        browse(folder, dataset, table(300), shown(), SETTINGS, ABOUT, effects={"direct": effects})

    make(tmp_path / "one")

    class Killed(BaseException):
        pass

    calls: list[int] = []

    def stop(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[1].dict_size)
        if len(calls) == 2:
            raise Killed
        return gather(*args, **kwargs)

    monkeypatch.setattr(browsing, "gather", stop)
    with pytest.raises(Killed):
        make(tmp_path / "two")
    assert not (tmp_path / "two" / files.PAGE).exists()
    make(tmp_path / "two")
    assert calls == [64, 32, 32, 16], "what was done is not done again"
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_live_features_alone_keep_their_numbers(dataset: FakeDataset, tmp_path: Path) -> None:
    settings = BrowseSettings(contexts=2, features="live", rows=400)
    result = browse(tmp_path / "b", dataset, table(300), shown(), settings, ABOUT)
    about = files.read(tmp_path / "b", "run")["dictionaries"][0]
    columns = files.read(tmp_path / "b", f"{about['slug']}/list-0")["columns"]
    assert 0 < about["shown"] == about["live"] < 64 and all(columns["peak"])
    records = files.read(tmp_path / "b", f"{about['slug']}/0000")
    assert [record["f"] for record in records] == columns["feature"] != list(range(about["shown"]))
    assert columns["raised"] is None and result["features"] < 112


def test_slugs_are_different_and_plain() -> None:
    found = files.slugs(["a/b", "a_b", "A_B", "..", "n512_l1-0.015_s0", "x" * 200])
    assert len({slug.lower() for slug in found.values()}) == 6
    assert all(re.fullmatch(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*", slug) for slug in found.values())
    assert found["n512_l1-0.015_s0"] == "n512_l1-0.015_s0"


# Walks through the page and says what it saw.
WALK = """<script>
const said = { errors: [] };
const note = (text) => said.errors.push(String(text));
addEventListener("error", (event) => note(event.message || event.target.outerHTML), true);
addEventListener("unhandledrejection", (event) => note(event.reason));
addEventListener("securitypolicyviolation", (event) => note("blocked: " + event.blockedURI));
for (const level of ["error", "warn"]) console[level] = (...words) => note(words.join(" "));
addEventListener("load", async () => {
  const wait = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));
  const shown = async () => {
    for (let i = 0; i < 200 && document.documentElement.dataset.shown !== (location.hash || "#"); i++) await wait(20);
    await wait(50);
  };
  const rows = () => [...document.querySelectorAll("#table tbody tr")];
  const heads = () => [...document.querySelectorAll("#table th")];
  const column = (title) => heads().findIndex((head) => head.textContent.startsWith(title));
  const values = (title) => rows().map((row) => row.cells[column(title)].textContent);
  const wide = () => [...document.querySelectorAll("body *")]
    .filter((one) => !one.closest(".scroll, .panel") && one.getBoundingClientRect().right > innerWidth + 0.5)
    .map((one) => one.outerHTML.slice(0, 80)).concat(document.documentElement.scrollWidth > innerWidth ? ["page"] : []);
  const go = async (hash) => { location.hash = hash; await shown(); };
  await shown();
  said.width = innerWidth;
  said.first = values("feature");
  said.wide = wide();
  said.count = document.getElementById("count").textContent;
  document.querySelectorAll("#table th button")[column("density")].click();
  await shown();
  said.sorted = values("density");
  said.hash = location.hash;
  const search = document.getElementById("search");
  search.value = "plain"; search.dispatchEvent(new Event("input"));
  await shown();
  said.found = values("label");
  said.kept = new URLSearchParams(location.hash.slice(1)).get("q");
  await go("#d=n64&density=0.01..");
  said.ranged = values("density");
  said.links = {};
  for (const [d, f] of [["n64", LIVE], ["n64", 63], ["n32 <i>", 5], ["neurons", 0], ["n64", ALSO]]) {
    await go("#" + new URLSearchParams({ d, f }));
    const lines = document.querySelectorAll(".contexts li").length;
    said.links[`${d} ${f}`] = [document.querySelector("#feature h2").textContent, lines];
    said.wide.push(...wide());
  }
  await go("#d=n64&f=LIVE");
  said.label = document.querySelector(".label").textContent;
  said.text = document.getElementById("feature").textContent;
  said.strange = document.querySelectorAll("#feature img, #feature b, #feature script").length;
  said.other = document.querySelector("#feature td a").getAttribute("href");
  history.back();
  await wait(100); await shown();
  said.back = document.querySelector("#feature h2").textContent;
  await go("#d=n64&f=999");
  said.problem = document.getElementById("problem").textContent;
  await go("#d=*");
  said.all = document.getElementById("count").textContent;
  said.background = getComputedStyle(document.body).backgroundColor;
  parent.postMessage(said, "*");
});
</script>"""
FRAMES = """<!DOCTYPE html><title>frames</title><body><pre id="said"></pre><script>
const said = [];
// One after the other: frames of a page share its history, and the walk goes back in it.
const next = () => {
  const frame = document.createElement("iframe");
  Object.assign(frame, { src: "spied.html", width: WIDTHS[said.length], height: 900, style: "border:0" });
  document.body.append(frame);
};
addEventListener("message", (event) => {
  said.push(event.data);
  document.getElementById("said").textContent = JSON.stringify(said);
  if (said.length < WIDTHS.length) next();
});
next();
</script>"""
WIDTHS = (360, 1440)


def look(folder: Path, profile: Path, address: str = "", *, dark: bool = False) -> Iterator[dict[str, Any]]:
    """What the walk says at each of WIDTHS, in frames of a page that is written into `folder`, served at `address`."""
    assert CHROMIUM is not None
    (folder / "frames.html").write_text(FRAMES.replace("WIDTHS", str(list(WIDTHS))))
    page, walk = (folder / files.PAGE).read_text(), WALK.replace("LIVE", str(LIVE)).replace("ALSO", str(ALSO))
    (folder / "spied.html").write_text(page.replace("<head>", "<head>" + walk, 1))
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=120000",
        f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"{address or folder.as_uri()}/frames.html",
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    said = re.search(r'<pre id="said">(.*?)</pre>', dom, re.DOTALL)
    assert said is not None, dom[-2000:]
    found = json.loads(html.unescape(said[1]))
    assert len(found) == len(WIDTHS), found
    yield from sorted(found, key=lambda window: int(window["width"]))


def check_walk(said: dict[str, Any], dark: bool) -> None:
    assert said["errors"] == [] and said["wide"] == []
    assert len(said["first"]) == 64 and said["count"] == "64 of 64 features"
    density = [0 if text == "0" else float(text.rstrip("%")) for text in said["sorted"]]
    assert density == sorted(density, reverse=True) and "sort=-density" in said["hash"]
    assert said["found"] == ["plain words"] and said["kept"] == "plain"
    ranged = [float(text.rstrip("%")) for text in said["ranged"]]
    assert ranged and min(ranged) >= 1 and len(ranged) < 64
    assert [found[0] for found in said["links"].values()] == [
        f"n64 · feature {LIVE}", "n64 · feature 63", "n32 <i> · feature 5", "neurons · feature 0",
        f"n64 · feature {ALSO}",
    ]  # fmt: skip
    assert any(found[1] > 5 for found in said["links"].values())
    assert said["label"].startswith("<b>bold</b> & hostile") and said["strange"] == 0
    assert said["back"] == f"n64 · feature {ALSO}" and "d=" in said["other"]
    assert "no feature 999" in said["problem"] and said["all"] == "112 of 112 features"
    assert (int(re.findall(r"\d+", said["background"])[0]) < 80) == dark


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (apt-get install chromium)")


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_opens_from_a_disk(made: Path, tmp_path: Path, dark: bool) -> None:
    copied = tmp_path / "mailed"
    shutil.copytree(made, copied)
    for said in look(copied, tmp_path / "profile", dark=dark):
        check_walk(said, dark)
        assert "</script><script>parent" in said["text"] and "😀" in said["text"] and "…(10000)" in said["text"]


@needs_chromium
def test_the_page_opens_from_the_server(made: Path, tmp_path: Path) -> None:
    copied = tmp_path / "served"
    shutil.copytree(made, copied)
    own = server(copied, 0, lambda dictionary, text: [])
    thread = threading.Thread(target=own.serve_forever)
    thread.start()
    try:
        for said in look(copied, tmp_path / "profile", f"http://127.0.0.1:{own.server_port}"):
            check_walk(said, dark=False)
    finally:
        own.shutdown()
        thread.join()
        own.server_close()


def test_a_page_is_small_and_fetches_nothing(made: Path) -> None:
    page = (made / files.PAGE).read_text()
    assert "default-src 'none'" in page and len(page.encode()) < 60_000
    assert not re.findall(r"(?:src|href)=[\"'](?:https?:)?//", page)
    assert max(file.stat().st_size for file in made.rglob("*.js")) < 2_000_000
