"""What contributors run: the hooks before a commit, and the look-up of vulnerabilities."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from servers import free_port, http_server

ROOT = Path(__file__).parents[2]


def test_the_hooks_before_a_commit_are_what_make_lint_runs() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\nlint: ")[1].split("\n\n")[0]
    linted = [line.strip().removeprefix("$(BIN)/") for line in recipe.splitlines()[1:]]
    configuration = YAML(typ="safe").load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"] for repo in configuration["repos"] for hook in repo["hooks"]]
    # ruff gets the changed files in place of the dot
    assert [hook.removeprefix(".venv/bin/") for hook in hooks] == [
        command.removesuffix(" .") for command in linted
    ]


@contextmanager
def advisories(known: dict[str, list[Any]]) -> Iterator[str]:
    """Address of a server that answers as OSV does.

    known   vulnerabilities of a package
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps({"vulns": known.get(asked["package"]["name"], [])}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: Any) -> None:
            pass

    with http_server(Handler) as url:
        yield f"{url}/query"


def audit(file: Path, address: str) -> tuple[int, str]:
    """Exit code and output."""
    options = ["--vulnerability-service", "osv", "--osv-url", address, "--timeout", "5"]
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py", file, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    (tmp_path / "constraints.txt").write_text("one==1.0\ntwo==2.0\n")
    return tmp_path / "constraints.txt"


def test_an_audit_names_what_is_known_and_fails(pinned: Path) -> None:
    affected = {
        "package": {"ecosystem": "PyPI", "name": "two"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}],
    }
    known = {"id": "PYSEC-2026-1", "summary": "bad", "affected": [affected]}
    with advisories({}) as address:
        assert audit(pinned, address) == (0, "2 of 2 packages audited, 0 vulnerabilities known.\n")
    with advisories({"two": [known]}) as address:
        code, out = audit(pinned, address)
    assert code == 1
    assert "two 2.0: PYSEC-2026-1, fixed in 2.1" in out


def test_an_audit_without_a_network_says_that_nothing_was_audited(pinned: Path) -> None:
    code, out = audit(pinned, f"http://127.0.0.1:{free_port()}/query")
    assert code == 3
    assert "Nothing was audited: is there a network?" in out
