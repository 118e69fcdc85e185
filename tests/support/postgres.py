"""A real PostgreSQL server for tests, from whatever binaries the machine has."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from servers import free_port

SETTINGS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "listen_addresses=127.0.0.1",
)
ROLE = "ratchet"
NUMBERS = count(1)


@dataclass(frozen=True)
class Postgres:
    """A running server; whoever is on this machine may connect, nobody else can."""

    binaries: Path
    port: int

    def make_database(self) -> str:
        """Create a database and return its address without the scheme, which names the driver.

        A complete address is `postgresql+psycopg2://` and what this returns.
        """
        name = f"test_{next(NUMBERS)}"
        command = [
            str(self.binaries / "createdb"),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            ROLE,
            name,
        ]
        subprocess.run(command, check=True, capture_output=True)
        return f"{ROLE}@127.0.0.1:{self.port}/{name}"


def find_binaries() -> Path | None:
    """The directory of the newest PostgreSQL's `initdb` and `postgres`."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if config := shutil.which("pg_config"):
        found.append(
            Path(
                subprocess.run(
                    [config, "--bindir"], check=True, capture_output=True, text=True
                ).stdout.strip()
            )
        )
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve().parent)
    whole = [
        place
        for place in found
        if all((place / name).is_file() for name in ("initdb", "postgres", "createdb"))
    ]
    return max(whole, key=_major, default=None)


def _major(binaries: Path) -> int:
    told = subprocess.run(
        [binaries / "postgres", "--version"], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"\d+", told)
    assert found, told
    return int(found[0])


def _ordinary_user() -> pwd.struct_passwd | None:
    """Whom to run the server as: PostgreSQL refuses root. None: as who we are."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name: user for user in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the whole session."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(
            "no PostgreSQL binaries: not under /usr/lib/postgresql, by pg_config, or on PATH "
            "(Debian: apt install postgresql)"
        )
    with running(binaries) as server:
        yield server


@contextmanager
def running(binaries: Path) -> Iterator[Postgres]:
    """A server in a directory of its own."""
    user = _ordinary_user()
    # not in pytest's directory: the ordinary user cannot enter it, and its path is too long for a
    # socket
    home = Path(tempfile.mkdtemp(prefix="ratchet-pg-"))
    identity: dict[str, Any] = {"cwd": home}
    if user is not None:
        os.chown(home, user.pw_uid, user.pw_gid)
        identity |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    try:
        initdb: list[str | Path] = [
            binaries / "initdb",
            "-D",
            home / "data",
            "-U",
            ROLE,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        subprocess.run(initdb, check=True, capture_output=True, **identity)
        port = free_port()
        settings = [part for setting in SETTINGS for part in ("-c", setting)]
        with (home / "log").open("wb") as log:
            command: list[str | Path] = [
                binaries / "postgres",
                "-D",
                home / "data",
                "-p",
                str(port),
                "-k",
                home,
                *settings,
            ]
            process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, **identity
            )
        try:
            _wait(binaries, port, process, home / "log")
            yield Postgres(binaries, port)
        finally:
            process.send_signal(signal.SIGINT)  # its fast shutdown: clients are cut off
            process.wait(timeout=20)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait(binaries: Path, port: int, process: subprocess.Popen[Any], log: Path) -> None:
    ready: list[str | Path] = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        if subprocess.run(ready, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"PostgreSQL does not answer\n{log.read_text()}")
