"""What the Hugging Face hub answers, by its own client against a server that answers like it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tasks.core.errors import SourceError
from tasks.core.progress import silent
from tasks.data.sources.fetching import fetch, resolve_model
from tasks.params.ingestion import Source
from tasks.params.schema import BaseModelParams

FILES = ["a.csv", "b.csv", "README.md"]


class Hub(BaseHTTPRequestHandler):
    """Knows the data set owner/rows at the revision main; its files are listed but not there."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if "gated" in self.path:
            return self._answer(403, "GatedRepo")
        if "owner/rows" not in self.path:
            return self._answer(404, "RepoNotFound")
        if "main" not in self.path:
            return self._answer(404, "RevisionNotFound")
        if "/resolve/" in self.path:
            return self._answer(404, "EntryNotFound")
        files = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in FILES]
        about = {"id": "owner/rows", "siblings": [{"rfilename": name} for name in FILES]}
        return self._answer(200, "", files if "/tree/" in self.path else about)

    def _answer(self, status: int, code: str, content: Any = None) -> None:
        body = json.dumps({"error": code} if code else content).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        template = address + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("hf://owner/gone@main/a.csv", "no such repository"),
        ("hf://owner/gated@main/a.csv", "no access to it"),
        ("hf://owner/rows@old/a.csv", "no such revision"),
        ("hf://owner/rows@main/a.csv", "has no such file"),
        ("hf://owner/rows@main/*.parquet", "no data file of the repository matches"),
        ("hf://ow--ner/rows@main/a.csv", "not a valid id"),
    ],
)
def test_what_is_not_there_is_told(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=says) as told:
        fetch(Source(url=url), tmp_path, tmp_path / "cache", silent)
    assert url.partition("@")[0] in told.value.message
    assert told.value.remedy


def test_several_files_have_no_one_hash(tmp_path: Path) -> None:
    source = Source(url="hf://owner/rows@main/*.csv", sha256="a" * 64)
    with pytest.raises(SourceError, match="matches 2 files, but one sha256"):
        fetch(source, tmp_path, tmp_path / "cache", silent)


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    base = BaseModelParams(path="owner/gone", revision="a" * 40)
    with pytest.raises(SourceError, match="no such repository"):
        resolve_model(base, tmp_path, tmp_path / "cache")
