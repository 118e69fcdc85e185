"""Cache of the registered version for a content key, so that a repeated look-up needs no MLflow.

Asking MLflow takes two seconds or more, mostly imports. If the registry is a local database file
that has not been written to since, its answer is still the same; a server, or a database
elsewhere, cannot be checked that way and is asked every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.files import read_kept, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "standing.json"
# bytes of SQLite's header, which holds a change counter (sqlite.org/fileformat2.html, 1.3.7)
_HEADER = 100


class KnownVersion:
    """The registered version for one content key, as the registry at `uri` last reported it.

    store  directory of the cache file
    """

    def __init__(self, uri: str, store: Path, name: str, content_key: str) -> None:
        self._database = (
            Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        )
        self._file = store / FILE
        self._name, self._key = name, content_key

    def recall(self) -> dict[str, Any] | None:
        """Cached `version` and `run_id`; None unless the registry is provably unchanged since."""
        mark = self._mark()
        kept = read_kept(self._file, "name", "key", "mark", "said")
        if mark is None or kept is None:
            return None
        if [kept["name"], kept["key"], kept["mark"]] != [self._name, self._key, mark]:
            return None
        registered: dict[str, Any] = kept["said"]
        return registered

    def ask(
        self, client: MlflowClient, experiment_id: str, made: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """Ask the registry, cache the answer; None unless the key's version is `challenger`.

        made  tags of the workspace's model, which identify a version registered under an earlier
              kind of key
        """
        from tasks.lifecycle.registry import CHALLENGER, find_version, keep_one_run, run_id_of

        mark = self._mark()  # taken first: a write in the meantime may be missing from the answer
        version = find_version(client, self._name, self._key, made)
        if version is None or CHALLENGER not in version.aliases:
            return None
        keep_one_run(client, experiment_id, self._key, run_id_of(version))
        registered = {"version": int(version.version), "run_id": run_id_of(version)}
        if mark is not None:
            kept = {"name": self._name, "key": self._key, "mark": mark, "said": registered}
            write_json(self._file, kept)
        return registered

    def _mark(self) -> list[Any] | None:
        """State that changes with every write to the database; None if it is not a local file."""
        if self._database is None or not self._database.is_file():
            return None
        with self._database.open("rb") as file:
            header = file.read(_HEADER).hex()
        log = self._database.with_name(f"{self._database.name}-wal")
        files = [self._database, *([log] if log.is_file() else [])]
        return [header, *([file.stat().st_size, file.stat().st_mtime_ns] for file in files)]
