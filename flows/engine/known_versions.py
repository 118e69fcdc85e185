"""Which version stands for a content key, kept beside the registry's database, so that who asks again need not load MLflow.

Asking it takes two seconds and more, most of it imports. A database file on this disk that nobody has written to since says the same
again; of a server, or a database elsewhere, that cannot be known, and it is asked every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.files import read_kept, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "standing.json"
_HEADER = (
    100  # bytes of SQLite's header: it counts the changes (sqlite.org/fileformat2.html, 1.3.7)
)


class Standing:
    """What the registry at `uri` last said of a content key; `store` is where that is kept."""

    def __init__(self, uri: str, store: Path, name: str, content_key: str) -> None:
        self._database = (
            Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        )
        self._file = store / FILE
        self._name, self._key = name, content_key

    def recall(self) -> dict[str, Any] | None:
        """`version` and `run_id`, if the registry is as it was when it said so."""
        mark = self._mark()
        kept = read_kept(self._file, "name", "key", "mark", "said")
        if (
            mark is None
            or kept is None
            or [kept["name"], kept["key"], kept["mark"]] != [self._name, self._key, mark]
        ):
            return None
        said: dict[str, Any] = kept["said"]
        return said

    def ask(
        self, client: MlflowClient, experiment_id: str, made: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """The same of the registry itself, which is then kept; None where the key has no version, or not the alias `challenger`.

        made  the tags of what lies here, by which a version is known that was registered under another kind of key
        """
        from tasks.lifecycle.registry import CHALLENGER, find_version, keep_one_run

        mark = (
            self._mark()
        )  # before it is asked: what is written meanwhile is not known to be in the answer
        version = find_version(client, self._name, self._key, made)
        if version is None or CHALLENGER not in version.aliases:
            return None
        keep_one_run(client, experiment_id, self._key, str(version.run_id))
        said = {"version": int(version.version), "run_id": str(version.run_id)}
        if mark is not None:
            write_json(
                self._file, {"name": self._name, "key": self._key, "mark": mark, "said": said}
            )
        return said

    def _mark(self) -> list[Any] | None:
        """What differs as soon as the database was written to; None where there is no such file."""
        if self._database is None or not self._database.is_file():
            return None
        with self._database.open("rb") as file:
            header = file.read(_HEADER).hex()
        log = self._database.with_name(f"{self._database.name}-wal")
        files = [self._database, *([log] if log.is_file() else [])]
        return [header, *([file.stat().st_size, file.stat().st_mtime_ns] for file in files)]
