"""Served to this machine alone: which requests are answered, and with what."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparsecode.browser import folder as files
from sparsecode.browser.serve import server
from sparsecode.errors import ModelInvalid


def answer(name: str, text: str) -> Any:
    if text == "bad":
        raise ModelInvalid("it cannot")
    return [name, text]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    folder = tmp_path / "browse"
    files.write(folder, "run", {"a": 1})
    files.write_page(folder)
    (folder / "other.txt").write_text("not of the page")
    (tmp_path / "secret.js").write_text("secret")
    (folder / "link.js").symlink_to(tmp_path / "secret.js")
    own = server(folder, 0, answer)
    assert own.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=own.serve_forever)
    thread.start()
    yield own.server_port
    own.shutdown()
    thread.join()
    own.server_close()


def get(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    said = connection.getresponse()
    return said.status, said.read(), {key.lower(): value for key, value in said.getheaders()}


def test_the_page_and_its_data(port: int) -> None:
    code, page, headers = get(port, "/")
    assert code == 200 and b'data-serve="yes"' in page and headers["content-type"].startswith("text/html")
    assert get(port, "/data/run.js")[1].startswith(b'sparsecode.take("run", ')
    assert get(port, "/", host=f"localhost:{port}")[0] == 200
    assert not any(key.startswith("access-control") for key in headers)


@pytest.mark.parametrize(
    "path",
    ["/../secret.js", "/%2e%2e/secret.js", "/link.js", "/other.txt", "/data", "/%00.js", "//etc/passwd", "/x.js",
     "/" + "a" * 3000 + ".js"],
)  # fmt: skip
def test_nothing_else(port: int, path: str) -> None:
    assert get(port, path)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "evil.example:80", "127.0.0.1.evil.example"])
def test_another_host_is_refused(port: int, host: str) -> None:
    assert get(port, "/", host=host)[0] == get(port, "/try?text=a", host=host)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_reads(port: int, method: str) -> None:
    assert get(port, "/", method=method)[0] == 501


def test_a_text(port: int) -> None:
    code, data, headers = get(port, "/try?d=n512&text=a%20b")
    assert code == 200 and json.loads(data) == ["n512", "a b"] and headers["content-type"] == "application/json"
    code, data, _ = get(port, "/try?text=bad")
    assert code == 400 and json.loads(data) == {"problem": "it cannot"}
    assert len(json.loads(get(port, "/try?text=" + "x" * 30_000)[1])[1]) == 20_000
