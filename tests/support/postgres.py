"""A real PostgreSQL server for tests, run from the machine's binaries."""

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

DURABILITY = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
SETTINGS = (*DURABILITY, "listen_addresses=127.0.0.1")
ROLE = "ratchet"
NUMBERS = count(1)
NO_BINARIES = (
    "no PostgreSQL binaries: not under /usr/lib/postgresql, by pg_config, or on PATH "
    "(Debian: apt install postgresql)"
)


@dataclass(frozen=True)
class Postgres:
    """A running server; it accepts anyone on this machine, and nobody else."""

    binaries: Path
    port: int

    def make_database(self) -> str:
        """Create a database; returns its address without the scheme, which names the driver.

        The full address is `postgresql+psycopg2://` and the returned text.
        """
        name = f"test_{next(NUMBERS)}"
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", ROLE]
        command = [str(self.binaries / "createdb"), *address, name]
        subprocess.run(command, check=True, capture_output=True)
        return f"{ROLE}@127.0.0.1:{self.port}/{name}"


def find_binaries() -> Path | None:
    """The directory of the newest PostgreSQL's `initdb`, `postgres` and `createdb`."""
    directories = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if config := shutil.which("pg_config"):
        directories.append(Path(_output(config, "--bindir").strip()))
    if initdb := shutil.which("initdb"):
        directories.append(Path(initdb).resolve().parent)
    complete = [
        directory
        for directory in directories
        if all((directory / name).is_file() for name in ("initdb", "postgres", "createdb"))
    ]
    return max(complete, key=_major, default=None)


def _major(binaries: Path) -> int:
    version = _output(binaries / "postgres", "--version")
    number = re.search(r"\d+", version)
    assert number, version
    return int(number[0])


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _ordinary_user() -> pwd.struct_passwd | None:
    """The user to run the server as, because PostgreSQL refuses root; None for the current one."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name: user for user in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the whole session."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(NO_BINARIES)
    with running(binaries) as server:
        yield server


@contextmanager
def running(binaries: Path) -> Iterator[Postgres]:
    """A server in a directory of its own."""
    user = _ordinary_user()
    # not in pytest's directory: the ordinary user cannot read it, and a socket's path must be short
    home = Path(tempfile.mkdtemp(prefix="ratchet-pg-"))
    identity: dict[str, Any] = {"cwd": home}
    if user is not None:
        os.chown(home, user.pw_uid, user.pw_gid)
        identity |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    try:
        options = ["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        initdb = [binaries / "initdb", "-D", home / "data", *options]
        subprocess.run(initdb, check=True, capture_output=True, **identity)
        port = free_port()
        settings = [part for setting in SETTINGS for part in ("-c", setting)]
        with (home / "log").open("wb") as log:
            address = ["-p", str(port), "-k", home]
            command = [binaries / "postgres", "-D", home / "data", *address, *settings]
            process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, **identity
            )
        try:
            _wait(binaries, port, process, home / "log")
            yield Postgres(binaries, port)
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: it disconnects its clients
            process.wait(timeout=20)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait(binaries: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    ready = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        if subprocess.run(ready, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"PostgreSQL does not answer\n{log.read_text()}")
