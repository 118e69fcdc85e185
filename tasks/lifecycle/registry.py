"""MLflow: the experiment, the run of a content key, the versions of a model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.core.errors import BundleError, RegistryError
from tasks.core.files import atomic_path
from tasks.inference.bundle import open_bundle
from tasks.lifecycle.moved_workspace import ARTIFACTS, follow_move

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = (
    "champion",
    "challenger",
)  # aliases: the version in production, and the newest
CONTENT_KEY = "ratchet.content_key"
EARLIER_KEY = "ratchet.earlier_content_key"  # the key it was registered under, when that held digests of code files
STAGE_VERSIONS = "ratchet.stage_versions"  # the declared versions of the stages' code; no version from before them has it
DATA_HASH = "ratchet.data_hash"
DECISION = "ratchet.decision."  # a version's tags that hold the decisions about it, by id
BUNDLE_SHA256 = "ratchet.bundle_sha256"  # of its manifest, which holds every other file's
_DAMAGED_DATABASE = (
    "The database is damaged: restore a copy of it, or move it away, and `ratchet train` "
    "registers what it made in a new one."
)


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """MLflow's and its database's refusals as a RegistryError."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException) as error:
        causes = list(_causes(error))
        # no answer: the innermost cause says why in a few words (refused, unknown host, certificate)
        unanswered = any(
            isinstance(cause, requests.ConnectionError | requests.Timeout) for cause in causes
        )
        found = f"no answer: {causes[-1]}" if unanswered else str(error)
        reason = " ".join(found.split())[:500].replace(urlsplit(uri).password or "\0", "***")
        damaged = any(
            words in found for words in ("disk image is malformed", "file is not a database")
        )
        raise RegistryError(
            f"MLflow at {_without_password(uri)}: {reason}",
            _DAMAGED_DATABASE
            if damaged
            else "Check MLFLOW_TRACKING_URI and that the server or database is up.",
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def connect(uri: str, store: Path, experiment: str) -> tuple[MlflowClient, str]:
    """(client, experiment id); the experiment is made if it is missing, its artifacts under `store` for a database."""
    import mlflow
    from mlflow.exceptions import MlflowException

    with mlflow_errors(uri):
        if uri.startswith("sqlite:///"):
            database = Path(uri.removeprefix("sqlite:///"))
            _make_database(database)
            if database.parent == store:
                follow_move(database, store, experiment)
        elif not uri.startswith("http"):
            _reach_database(uri)
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            return client, str(found.experiment_id)
        # a server decides for itself where artifacts lie; beside a bare database they would land in the working directory
        location = None if uri.startswith("http") else (store / ARTIFACTS).as_uri()
        try:
            return client, str(client.create_experiment(experiment, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # another machine made it meanwhile
            return client, str(client.get_experiment_by_name(experiment).experiment_id)


def _make_database(file: Path) -> None:
    """Make MLflow's tables beside the database's place: a first use that is killed half-way would leave a database that none can open."""
    import mlflow
    from filelock import FileLock

    if file.exists():
        if not file.is_file() or not file.stat().st_size:
            raise RegistryError(
                f"MLflow at sqlite:///{file}: {'empty' if file.is_file() else 'a directory'}, wanted MLflow's database.",
                _DAMAGED_DATABASE,
            )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    # of two first uses at once, the later would put an empty database in the place of one in use
    with FileLock(file.with_name(f"{file.name}.lock")):
        if not file.exists():
            with atomic_path(file) as new:
                mlflow.MlflowClient(f"sqlite:///{new}").search_experiments()


def _reach_database(uri: str) -> None:
    """Connect once: MLflow itself keeps trying for two minutes, in silence, before it says that no database is there."""
    from sqlalchemy import create_engine

    try:
        create_engine(uri).connect().close()
    except ModuleNotFoundError as error:
        raise RegistryError(
            f"MLflow at {_without_password(uri)}: the database's driver is not installed: {error}.",
            "Install it; PostgreSQL's comes with the extra `postgres`.",
        ) from None


def claim_run(client: MlflowClient, experiment_id: str, content_key: str, name: str) -> Run:
    """The one run of this content key: that of an earlier or simultaneous attempt, or a new one; others of the key are deleted.

    MLflow gives a run no key of its own, so a run is made the key's by what every MLflow store makes at most once, an experiment's name:
    'ratchet MODEL run KEY n', hidden at once. n is 1 unless the run of an earlier claim was deleted.
    """
    found = _runs(client, experiment_id, content_key)
    run = (
        found[0]
        if found
        else client.create_run(experiment_id, run_name=name, tags={CONTENT_KEY: content_key})
    )
    for number in count(1):
        claimed = _claim_once(
            client, f"ratchet {name} run {content_key[:32]} {number}", "run", run.info.run_id
        )
        if claimed == run.info.run_id or _is_there(client, claimed):
            break
    if found or claimed != run.info.run_id:
        client.set_terminated(claimed, "RUNNING")
    keep_one_run(client, experiment_id, content_key, claimed)
    return client.get_run(claimed)


def keep_one_run(
    client: MlflowClient, experiment_id: str, content_key: str, mlflow_run_id: str
) -> None:
    """Delete the other runs of this content key, which attempts left that were killed, or had not seen each other."""
    from mlflow.exceptions import MlflowException

    for run in _runs(client, experiment_id, content_key):
        if run.info.run_id != mlflow_run_id:
            try:
                client.delete_run(run.info.run_id)
            except MlflowException:
                if _is_there(client, run.info.run_id):  # the other machine was not quicker
                    raise


def _runs(client: MlflowClient, experiment_id: str, content_key: str) -> list[Run]:
    """Oldest first."""
    found: list[Run] = client.search_runs(
        [experiment_id],
        f"tags.`{CONTENT_KEY}` = '{content_key}'",
        order_by=["attributes.start_time"],
    )
    return found


def _is_there(client: MlflowClient, mlflow_run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(mlflow_run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def _claim_once(client: MlflowClient, name: str, tag: str, value: str) -> str:
    """What holds a claim: the value of whoever was first to make an experiment of this name, which is hidden."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_experiment(name, tags={tag: value})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    claim = client.get_experiment_by_name(name)
    if claim.lifecycle_stage == "active":
        with suppress(MlflowException):  # the other machine was quicker
            client.delete_experiment(claim.experiment_id)
    return str(claim.tags.get(tag, ""))


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Every version, newest first, with aliases; none if the model is not registered."""
    from mlflow.exceptions import MlflowException

    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        aliases = {}
    for version in found:  # a search leaves the aliases out
        version.aliases[:] = sorted(
            alias for alias, number in aliases.items() if str(number) == str(version.version)
        )
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def find_version(
    client: MlflowClient, name: str, content_key: str, made: Mapping[str, str]
) -> ModelVersion | None:
    """The version that this content key made; should there be several, one is kept.

    made  tags of what is at hand: a version of its data and bundle from before stages declared versions gets the key as its own
    """
    every = versions(client, name)
    found = _of_key(every, content_key)
    return _keep_one(client, name, found) if found else _take_over(client, content_key, every, made)


def _take_over(
    client: MlflowClient, content_key: str, every: list[ModelVersion], made: Mapping[str, str]
) -> ModelVersion | None:
    same = {tag: made.get(tag) for tag in (BUNDLE_SHA256, DATA_HASH)}
    earlier = (
        version
        for version in every
        if STAGE_VERSIONS not in version.tags and same.items() <= version.tags.items()
    )
    if version := next(earlier, None):
        for tag, value in (
            (EARLIER_KEY, version.tags.get(CONTENT_KEY, "")),
            (CONTENT_KEY, content_key),
        ):
            client.set_tag(version.run_id, tag, value)
            client.set_model_version_tag(version.name, version.version, tag, value)
            version.tags[tag] = value
    return version


def keep_one_version(client: MlflowClient, name: str, content_key: str) -> ModelVersion:
    """The oldest version of this content key, or the oldest that is champion or was decided about; others without an alias are deleted.

    Two machines that register the same key at once make two, and so may one whose request was sent again because a server that
    had done it went down before it answered. Whoever comes second sees the first, so one is left however they interleave; and
    whoever looks next deletes what a machine left that died between the two steps.
    """
    return _keep_one(client, name, _of_key(versions(client, name), content_key))


def _keep_one(client: MlflowClient, name: str, found: list[ModelVersion]) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    kept, *others = sorted(found, key=lambda version: not _is_decided(version))
    for version in others:
        if not _is_decided(version) and set(version.aliases) <= {CHALLENGER}:
            try:
                client.delete_model_version(name, version.version)
            except MlflowException as error:  # the other machine was quicker
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
    return kept


def _is_decided(version: ModelVersion) -> bool:
    """Whether it is champion, or a decision stands on it, which must not be lost."""
    return CHAMPION in version.aliases or any(key.startswith(DECISION) for key in version.tags)


def _of_key(every: list[ModelVersion], content_key: str) -> list[ModelVersion]:
    """Oldest first."""
    return [
        version
        for version in reversed(every)
        if content_key in map(version.tags.get, (CONTENT_KEY, EARLIER_KEY))
    ]


def registered_sha256(version: ModelVersion) -> str:
    """Of the manifest of the version's bundle; BundleError where the registry does not know it, for then nothing could be checked."""
    found = version.tags.get(BUNDLE_SHA256)
    if not found:
        raise BundleError(
            f"{version.name} version {version.version}: its tag {BUNDLE_SHA256} is gone, so its files cannot be checked.",
            "Name another version, or register it again with `ratchet train`.",
        )
    return str(found)


def download_bundle(client: MlflowClient, version: ModelVersion, downloads: Path) -> Path:
    """A local directory with the version's bundle; a copy in `downloads` where MLflow's artifacts are not on this disk."""
    from mlflow.artifacts import download_artifacts
    from mlflow.utils.file_utils import local_file_uri_to_path

    # a version's own `model_id` stays empty; its source is models:/ID
    model_id = str(version.source).removeprefix("models:/")
    location = client.get_logged_model(model_id).artifact_location
    if location.startswith(("file:", "/")):
        return Path(local_file_uri_to_path(location)) / "artifacts" / "bundle"
    target = downloads / model_id  # not the number: another registry has versions 1 and 2 as well
    if target.is_dir() and not _is_sound(target / "bundle", version):
        shutil.rmtree(target)
    if not target.is_dir():
        with atomic_path(target) as new:
            new.mkdir()
            download_artifacts(f"{location}/artifacts/bundle", dst_path=str(new))
    return target / "bundle"


def _is_sound(copy: Path, version: ModelVersion) -> bool:
    try:
        open_bundle(copy, registered=registered_sha256(version))
    except BundleError:
        return False
    return True
