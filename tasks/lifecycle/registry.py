"""MLflow: a model's experiment, the run of a content key, registered versions."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.core.addresses import public_address
from tasks.core.errors import RegistryError
from tasks.core.files import atomic_path
from tasks.core.progress import LINES
from tasks.lifecycle.moved_workspace import ARTIFACTS, follow_move

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

# aliases: the version in production, and the newest
CHAMPION, CHALLENGER = "champion", "challenger"
CONTENT_KEY = "ratchet.content_key"
# the content key it was registered under, when keys still held digests of code files
EARLIER_KEY = "ratchet.earlier_content_key"
# declared versions of the stages' code; missing on versions from before these existed
STAGE_VERSIONS = "ratchet.stage_versions"
DATA_HASH = "ratchet.data_hash"
DECISION = "ratchet.decision."  # prefix of a version's tags, one per decision, followed by its id
BUNDLE_SHA256 = "ratchet.bundle_sha256"  # of the manifest, which holds every other file's digest
ANSWER_SECONDS = 8  # of a server, before it is said that it does not answer
_DAMAGED_DATABASE = (
    "The database is damaged: restore a copy of it, or move it away, and `ratchet train` "
    "registers what it made in a new one."
)
# what an error's text holds, and what to do about it
_REMEDIES = (
    ("disk image is malformed", _DAMAGED_DATABASE),
    ("file is not a database", _DAMAGED_DATABASE),
    ("error code 401", "Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."),
    ("error code 403", "Ask an admin of that MLflow for the permission."),
)


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn errors of MLflow, its database and its server into a RegistryError."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException) as error:
        causes = list(_causes(error))
        # the innermost cause of a failed connection is short: refused, unknown host, certificate
        unanswered = any(
            isinstance(cause, requests.ConnectionError | requests.Timeout) for cause in causes
        )
        message = f"no answer: {causes[-1]}" if unanswered else str(error)
        reason = " ".join(message.split())[:500].replace(urlsplit(uri).password or "\0", "***")
        remedies = (remedy for sign, remedy in _REMEDIES if sign in message)
        remedy = next(remedies, "Check MLFLOW_TRACKING_URI and that the server or database is up.")
        raise RegistryError(f"MLflow at {public_address(uri)}: {reason}", remedy) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def connect(uri: str, store: Path, experiment: str) -> tuple[MlflowClient, str]:
    """(client, experiment id); creates the experiment if it is missing.

    With a database instead of a server, its artifacts go under `store`.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    with mlflow_errors(uri):
        if uri.startswith("sqlite:///"):
            database = Path(uri.removeprefix("sqlite:///"))
            _make_database(database)
            if database.parent == store:
                follow_move(database, store, experiment)
        elif uri.startswith("http"):
            _say_if_silent(uri)
        else:
            _reach_database(uri)
        log.debug("MLflow at %s, experiment %s", public_address(uri), experiment)
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient(uri)
        existing = client.get_experiment_by_name(experiment)
        if existing is not None:
            return client, str(existing.experiment_id)
        # a server chooses the location; a bare database would put them in the working directory
        location = None if uri.startswith("http") else (store / ARTIFACTS).as_uri()
        try:
            return client, str(client.create_experiment(experiment, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # another machine created it in the meantime
            return client, str(_experiment(client, experiment).experiment_id)


def _say_if_silent(uri: str) -> None:
    """Say that a server does not answer; the next request tries for a minute, as it may restart."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        credentials = get_default_host_creds(uri)
        http_request(credentials, "/health", "GET", max_retries=0, timeout=ANSWER_SECONDS)
    except MlflowException:
        LINES.warning("MLflow at %s does not answer; still trying ...", public_address(uri))


def require_active(client: MlflowClient, experiment_id: str, uri: str) -> None:
    """Raise RegistryError if the experiment was deleted: MLflow then refuses new runs."""
    with mlflow_errors(uri):
        experiment = client.get_experiment(experiment_id)
    if experiment.lifecycle_stage != "active":
        address = shlex.quote(public_address(uri))
        raise RegistryError(
            f"MLflow at {public_address(uri)}: the experiment '{experiment.name}' was deleted.",
            f"Restore it: MLFLOW_TRACKING_URI={address} "
            f"mlflow experiments restore --experiment-id {experiment_id}",
        )


def _experiment(client: MlflowClient, name: str) -> Experiment:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise RegistryError(
            f"MLflow: the experiment '{name}' was just there, and is gone.",
            "Run the command again.",
        )
    return experiment


def _make_database(file: Path) -> None:
    """Create MLflow's database under a temporary name, then rename it.

    A first use that is killed half-way would otherwise leave a database that cannot be opened.
    """
    import mlflow
    from filelock import FileLock

    if file.exists():
        if not file.is_file() or not file.stat().st_size:
            problem = "empty" if file.is_file() else "a directory"
            raise RegistryError(
                f"MLflow at sqlite:///{file}: {problem}, wanted MLflow's database.",
                _DAMAGED_DATABASE,
            )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    # of two simultaneous first uses, the later would replace a database in use by an empty one
    with FileLock(file.with_name(f"{file.name}.lock")):
        if not file.exists():
            with atomic_path(file) as new:
                mlflow.MlflowClient(f"sqlite:///{new}").search_experiments()


def _reach_database(uri: str) -> None:
    """Connect once, to fail fast: MLflow itself retries silently for two minutes."""
    from sqlalchemy import create_engine

    try:
        create_engine(uri).connect().close()
    except ModuleNotFoundError as error:
        raise RegistryError(
            f"MLflow at {public_address(uri)}: the database's driver is not installed: {error}.",
            "Install it; PostgreSQL's comes with the extra `postgres`.",
        ) from None


def claim_run(client: MlflowClient, experiment_id: str, content_key: str, name: str) -> Run:
    """The single run of this content key: an earlier or simultaneous attempt's, or a new one.

    Other runs of the key are deleted. MLflow's runs have no unique key, so the run is claimed
    through the one thing that every MLflow store creates at most once, an experiment name:
    'ratchet MODEL run KEY n', hidden at once. n is 1 unless an earlier claim's run was deleted.
    """
    existing = _runs(client, experiment_id, content_key)
    tags = {CONTENT_KEY: content_key}
    shown = f"{name} (training)"  # until it has a version
    run = existing[0] if existing else client.create_run(experiment_id, run_name=shown, tags=tags)
    for number in count(1):
        claim = f"ratchet {name} run {content_key[:32]} {number}"
        claimed = _claim_once(client, claim, "run", run.info.run_id)
        if claimed == run.info.run_id or _run_exists(client, claimed):
            break
    if existing or claimed != run.info.run_id:
        client.set_terminated(claimed, "RUNNING")
    log.debug("run %s of content key %s", claimed, content_key)
    keep_one_run(client, experiment_id, content_key, claimed)
    return client.get_run(claimed)


def keep_one_run(
    client: MlflowClient, experiment_id: str, content_key: str, mlflow_run_id: str
) -> None:
    """Delete the other runs of this content key, left by killed or simultaneous attempts."""
    from mlflow.exceptions import MlflowException

    for run in _runs(client, experiment_id, content_key):
        if run.info.run_id != mlflow_run_id:
            try:
                client.delete_run(run.info.run_id)
            except MlflowException:
                if _run_exists(client, run.info.run_id):  # no other machine deleted it first
                    raise


def _runs(client: MlflowClient, experiment_id: str, content_key: str) -> list[Run]:
    """The runs of this content key, oldest first."""
    key_filter = f"tags.`{CONTENT_KEY}` = '{content_key}'"
    order = ["attributes.start_time"]
    matches: list[Run] = client.search_runs([experiment_id], key_filter, order_by=order)
    return matches


def _run_exists(client: MlflowClient, mlflow_run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(mlflow_run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def _claim_once(client: MlflowClient, name: str, tag: str, value: str) -> str:
    """The value of whoever first created the experiment of this name, which is then hidden."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_experiment(name, tags={tag: value})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    claim = _experiment(client, name)
    if claim.lifecycle_stage == "active":
        with suppress(MlflowException):  # another machine hid it first
            client.delete_experiment(claim.experiment_id)
    return str(claim.tags.get(tag, ""))


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Every version with its aliases, newest first; empty if the model is not registered."""
    from mlflow.exceptions import MlflowException

    matches = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        aliases = {}
    for version in matches:  # a search leaves the aliases out
        version.aliases[:] = sorted(
            alias for alias, number in aliases.items() if str(number) == str(version.version)
        )
    return sorted(matches, key=lambda version: int(version.version), reverse=True)


def find_version(
    client: MlflowClient, name: str, content_key: str, tags: Mapping[str, str]
) -> ModelVersion | None:
    """The version of this content key; if there are several, all but one are deleted.

    tags  of the run at hand: a version from before stages declared versions, with the same data and
          bundle, is given the content key
    """
    all_versions = versions(client, name)
    if matches := _of_key(all_versions, content_key):
        return _keep_one(client, name, matches)
    return _take_over(client, content_key, all_versions, tags)


def _take_over(
    client: MlflowClient,
    content_key: str,
    all_versions: list[ModelVersion],
    tags: Mapping[str, str],
) -> ModelVersion | None:
    wanted = {tag: tags.get(tag) for tag in (BUNDLE_SHA256, DATA_HASH)}
    earlier = (
        version
        for version in all_versions
        if STAGE_VERSIONS not in version.tags and wanted.items() <= version.tags.items()
    )
    if version := next(earlier, None):
        earlier_key = version.tags.get(CONTENT_KEY, "")
        for tag, value in ((EARLIER_KEY, earlier_key), (CONTENT_KEY, content_key)):
            client.set_tag(run_id_of(version), tag, value)
            client.set_model_version_tag(version.name, version.version, tag, value)
            version.tags[tag] = value
    return version


def keep_one_version(client: MlflowClient, name: str, content_key: str) -> ModelVersion:
    """Delete all versions of this content key but one.

    Kept and returned is the oldest that is champion or has a decision, else the oldest; others that
    have a decision or a person's alias stay too.
    Two machines that register the same key at once create two versions, and so does one that sends
    its request again because the server went down after acting on it. The second to register sees
    the first, so one version is left however they interleave; what a machine left that died between
    registering and deleting, the next to look deletes.
    """
    return _keep_one(client, name, _of_key(versions(client, name), content_key))


def _keep_one(client: MlflowClient, name: str, duplicates: list[ModelVersion]) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    kept, *others = sorted(duplicates, key=lambda version: not _is_decided(version))
    for version in others:
        if not _is_decided(version) and set(version.aliases) <= {CHALLENGER}:
            try:
                client.delete_model_version(name, version.version)
            except MlflowException as error:  # another machine deleted it first
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
    return kept


def _is_decided(version: ModelVersion) -> bool:
    """Whether it is champion or has a decision, which must not be lost."""
    return CHAMPION in version.aliases or any(key.startswith(DECISION) for key in version.tags)


def _of_key(all_versions: list[ModelVersion], content_key: str) -> list[ModelVersion]:
    """The versions of this content key, oldest first."""
    return [
        version
        for version in reversed(all_versions)
        if content_key in map(version.tags.get, (CONTENT_KEY, EARLIER_KEY))
    ]


def run_id_of(version: ModelVersion) -> str:
    """Id of the version's MLflow run.

    Raises RegistryError if it has none, because then it has no metrics or reports either.
    """
    if not version.run_id:
        raise RegistryError(
            f"{version.name} version {version.version}: it has no MLflow run; "
            "`ratchet train` did not register it.",
            "Name another version, or delete this one in MLflow.",
        )
    return str(version.run_id)
