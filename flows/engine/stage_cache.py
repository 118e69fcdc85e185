"""DVC as the stage cache: a stage's status, restoring its outs, committing them.

Uses DVC's internals (dvc is pinned for that); no other module but cache_contents.py does.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.engine.cache_contents import (
    dvc_errors,
    find_run,
    forget_hashes,
    remove_damaged_objects,
    remove_obstructions,
    sound_runs,
)
from flows.engine.dvc_setup import set_up_dvc
from flows.engine.earlier_locks import migrated_stages, write_lock
from flows.engine.stage_status import StageStatus, stage_status
from tasks.core.errors import PipelineError, WorkspaceError
from tasks.core.files import sha256_json
from tasks.core.progress import LINES
from tasks.params.workspace import Workspace
from tasks.pipeline import (
    STAGES,
    START,
    START_FILE,
    START_OUTS,
    code_version,
    dvc_stages,
    find_stage,
    write_dvc_yaml,
)

log = logging.getLogger(__name__)

Snapshot = Mapping[str, Any]

# stages that determine the registered model; the report only describes it
MODEL_STAGES = tuple(stage.name for stage in STAGES if stage.name != "report")


@dataclass(frozen=True)
class Lineage:
    """Origin of a model.

    content_key   digest of data, params, code and base model: equal keys mean equal inputs
    data_hash     DVC's hash of data/raw
    code          declared code version of each stage
    """

    content_key: str
    data_hash: str
    code: Mapping[str, str]


class StageCache:
    """The workspace's stages as DVC sees them, with this run's overrides of params.yaml.

    values   top-level keys of params.yaml, overrides applied
    reading  read-only: dvc.yaml and dvc.lock are not written
    """

    def __init__(
        self, workspace: Workspace, values: Mapping[str, Any], *, reading: bool = False
    ) -> None:
        from dvc.repo import Repo

        if not reading:
            write_dvc_yaml(workspace, values)
        set_up_dvc(workspace.store)
        self._workspace = workspace
        self._root = workspace.root
        self._values = values
        self._problem = str(values["problem"])
        # (version of the file, its stages)
        self._lock: tuple[tuple[int, int, int] | None, Mapping[str, Any]] | None = None
        with dvc_errors(workspace.root):
            # workspaces made by earlier releases tell DVC to stage files in git
            self._repo = Repo(str(workspace.root), config={"core": {"autostage": False}})
        if not reading:
            self._migrate_lock()

    def close(self) -> None:
        """Close DVC's databases."""
        self._repo.close()

    def status(self, name: str) -> StageStatus:
        """Whether the stage's outs exist and belong to its present inputs."""
        with self._locked():
            return stage_status(self._stage(name))

    def statuses(self) -> dict[str, StageStatus]:
        """`status` of every stage, in order."""
        with self._locked():
            stages = self._stages()
            return {stage.name: stage_status(stages[stage.name]) for stage in STAGES}

    def restore(self, name: str) -> bool:
        """Restore outs that the present inputs produced before; False if there are none intact.

        Restored outs are read and compared with their hashes; damaged copies are dropped from the
        cache.
        """
        with self._locked():
            stage = self._stage(name)
            if not all(dep.exists for dep in stage.deps):
                return False
            earlier = find_run(self._repo, stage)
            if earlier is None:
                return False
            if damaged := remove_damaged_objects(earlier.outs):
                LINES.info(
                    "%-10s the copy of %s in DVC's cache is damaged and was dropped; "
                    "the stage runs again",
                    name,
                    ", ".join(damaged),
                )
            if not earlier.outs_cached():
                return False
            outs = [self._root / path for path in find_stage(name).outs.values()]
            forget_hashes(self._repo, outs)
            remove_obstructions(earlier.outs)
            earlier.checkout(force=True)
            self._save(stage)
            return True

    def read_inputs(self) -> None:
        """Make the next status read local sources, base models and adapters in full.

        Size and modification time can be unchanged although the bytes differ.
        """
        with self._locked():
            stages = self._stages().values()
            deps = {Path(dep.fs_path) for stage in stages for dep in self._foreign_deps(stage)}
            forget_hashes(self._repo, deps)

    def inputs(self, name: str) -> Snapshot:
        """The stage's inputs before it runs, read in full.

        Raises PipelineError if an input is no longer what an earlier stage made.
        """
        with self._locked():
            stages = self._stages()
            producers = {
                out.fs_path: (maker, out) for maker, stage in stages.items() for out in stage.outs
            }
            deps = stages[name].deps
            forget_hashes(
                self._repo, [Path(dep.fs_path) for dep in deps if dep.fs_path in producers]
            )
            for dep in deps:
                maker, out = producers.get(dep.fs_path, ("", None))
                if out is not None and dep.exists and dep.get_hash() != out.hash_info:
                    raise PipelineError(
                        f"{name}: {dep} is not what {maker} made: "
                        "its contents changed while its size and time did not.",
                        "Run the command again: it is restored from the cache, or made anew.",
                    )
        return self.snapshot(name)

    def snapshot(self, name: str) -> Snapshot:
        """Hash of each input now; None for a missing one, which the stage itself will report."""
        with self._locked():
            return {
                str(dep): dep.get_hash().value if dep.exists else None
                for dep in self._stage(name).deps
            }

    def commit(self, name: str, before: Snapshot) -> None:
        """Record the stage's outs in the cache and dvc.lock.

        before   its inputs when it started; PipelineError if they changed since, because then its
                 outs match no known inputs
        """
        if (after := self.snapshot(name)) != before:
            changed = ", ".join(sorted(path for path in after if after[path] != before.get(path)))
            raise PipelineError(
                f"{name}: {changed} changed while the stage ran.",
                "Run the command again; its outs were not kept.",
            )
        with self._locked():
            self._save(self._stage(name))

    def check_out_start(self) -> None:
        """Restore what start.dvc pins if files are missing (as in a fresh clone) or altered.

        Nothing changes if they are neither in the cache nor in the remote.
        """
        if (self._root / START_FILE).is_file():
            with self._locked():
                self._check_out(self._repo.stage.load_one(path=str(self._root / START_FILE)))

    def pin_start(self, hashes: Mapping[str, str], description: str) -> bool:
        """Make these outs the starting point; False if they are pinned already.

        hashes       DVC's hash of each of START_OUTS, to be found in the cache or the remote
        description  what they are, for the user
        Raises WorkspaceError, and changes nothing, if neither cache nor remote has them.
        """
        with self._locked():
            stage = self._start_stage(hashes, description)
            if not self._check_out(stage):
                raise WorkspaceError(
                    f"{description}: its checkpoint or the tokens it was trained on are neither in "
                    "DVC's cache nor in a remote.",
                    "Run `dvc push` where it was trained, then this command again; "
                    "or train with finetune.start_from: base.",
                )
            if (self._root / START_FILE).is_file() and hashes == self._pinned():
                return False
            stage.dump()
        write_dvc_yaml(self._workspace, self._values)
        return True

    def unpin_start(self) -> bool:
        """Remove the pin, so that training starts from the base model; False if there was none."""
        pinned = (self._root / START_FILE).is_file()
        with self._locked():
            (self._root / START_FILE).unlink(missing_ok=True)
            shutil.rmtree(self._root / START, ignore_errors=True)
        write_dvc_yaml(self._workspace, self._values)
        return pinned

    def lineage(self) -> Lineage:
        """Lineage of the model that the present inputs make; ingest must be clean."""
        inputs: dict[str, Any] = {}
        # local sources and base models count by their hashes, wherever they lie
        local: set[str] = set()
        with self._locked():
            stages = self._stages()
            for stage in (stages[name] for name in MODEL_STAGES):
                for dep in stage.params:
                    inputs |= dep.get_hash().value
                local |= {dep.get_hash().value for dep in self._foreign_deps(stage)}
            data_hash = str(stages["ingest"].outs[0].hash_info.value)
        code = {
            stage.name: code_version(stage, self._problem)
            for stage in STAGES
            if stage.name in MODEL_STAGES
        }
        return Lineage(
            sha256_json(inputs | {"local": sorted(local), "code": code, "data": data_hash}),
            data_hash,
            code,
        )

    def unpushed(self) -> list[str]:
        """Outs missing from the default remote; all outs if there is no remote."""
        from dvc.config import NoRemoteError

        with self._locked():
            try:
                return sorted(self._repo.status([str(self._root / "dvc.yaml")], cloud=True))
            except NoRemoteError:
                return [str(path) for stage in STAGES for path in stage.outs.values()]

    def _stage(self, name: str) -> Any:
        return self._stages(name)[name]

    def _stages(self, *names: str) -> dict[str, Any]:
        """DVC stages by name (default: all): the stage table's definition, dvc.lock's hashes."""
        from dvc.dvcfile import load_file
        from dvc.stage.loader import StageLoader

        file = load_file(self._repo, str(self._root / "dvc.yaml"))
        locked = self._locked_stages(file)
        table = dvc_stages(self._workspace, self._values)
        return {
            name: self._with_values(
                StageLoader.load_stage(file, name, table[name], locked.get(name))
            )
            for name in names or table
        }

    def _locked_stages(self, file: Any) -> Mapping[str, Any]:
        """Stages of dvc.lock; parsed again only when the file has changed."""
        lock = self._root / "dvc.lock"
        stat = lock.stat() if lock.is_file() else None
        version = stat and (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._lock is None or self._lock[0] != version:
            self._lock = (version, migrated_stages(file.lockfile_contents.get("stages", {})))
        return self._lock[1]

    def _migrate_lock(self) -> None:
        """Rewrite a dvc.lock from an earlier Ratchet, whose stages declared no versions."""
        from dvc.dvcfile import load_file

        with self._locked():
            contents = load_file(self._repo, str(self._root / "dvc.yaml")).lockfile_contents
            migrated = migrated_stages(contents.get("stages", {}))
            if migrated != contents.get("stages", {}):
                write_lock(self._root / "dvc.lock", contents | {"stages": migrated})
                LINES.info(
                    "dvc.lock: what an earlier Ratchet made is kept; "
                    "`ratchet train --force` makes it anew."
                )

    def _foreign_deps(self, stage: Any) -> list[Any]:
        """Deps that no stage makes: local sources, base models and adapters."""
        made = {(self._root / path).resolve() for stage in STAGES for path in stage.outs.values()}
        return [
            dep
            for dep in stage.deps
            if dep not in stage.params and Path(dep.fs_path).resolve() not in made
        ]

    def _with_values(self, stage: Any) -> Any:
        for dep in stage.params:
            # DVC sees overrides as if params.yaml held them; the file itself is unchanged
            dep.read_params = lambda dep=dep, **_: {
                key: self._values[key] for key in dep.params if key in self._values
            }
        return stage

    def _start_stage(self, hashes: Mapping[str, str], description: str) -> Any:
        from dvc.dvcfile import SingleStageFile
        from dvc.stage.loader import SingleStageLoader

        outs = [
            {"path": path, "hash": "md5", "md5": hashes[name]} for name, path in START_OUTS.items()
        ]
        file = SingleStageFile(self._repo, str(self._root / START_FILE))
        return SingleStageLoader.load_stage(file, {"desc": description, "outs": outs}, None)

    def _pinned(self) -> dict[str, str]:
        stage = self._repo.stage.load_one(path=str(self._root / START_FILE))
        hashes = {Path(out.fs_path): out.hash_info.value for out in stage.outs}
        return {name: hashes[self._root / path] for name, path in START_OUTS.items()}

    def _check_out(self, stage: Any) -> bool:
        """Check out the stage's outs; False, and nothing changes, if they cannot be had."""
        from dvc.exceptions import DvcException

        for out in stage.outs:
            if remove_damaged_objects([out]) or out.changed_cache():
                # a failed pull shows in what is still missing below
                with suppress(DvcException, FileNotFoundError):
                    for store, objects in out.get_used_objs(force=True).items():
                        self._repo.cloud.pull(objects, odb=store)
                if remove_damaged_objects([out]) or out.changed_cache():
                    return False
        forget_hashes(self._repo, [Path(out.fs_path) for out in stage.outs])
        remove_obstructions(stage.outs)
        stage.checkout(force=True)
        return True

    def _save(self, stage: Any) -> None:
        stage.save_deps()
        # first drop damaged run-cache entries: DVC keeps an existing entry instead of its new one
        sound_runs(self._repo.stage_cache, stage)
        stage.save()
        stage.commit()
        stage.dump(update_pipeline=False)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from dvc.repo import lock_repo

        # the run cache resolves 'dvc.yaml' relative to the working directory
        with (
            dvc_errors(self._root),
            chdir(self._root),
            lock_repo(self._repo),
            self._repo.scm_context(),
        ):
            self._repair_rwlock()
            yield

    def _repair_rwlock(self) -> None:
        """Remove DVC's list of locked paths if a kill truncated it: its writer holds none now."""
        file = Path(self._repo.tmp_dir) / "rwlock"
        with suppress(FileNotFoundError):
            try:
                json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                file.unlink()
