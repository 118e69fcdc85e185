"""DVC as the stage cache: is a stage clean, can it be restored, commit what it made.

These are DVC's internals (dvc is pinned for that) and they are used nowhere else.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.engine.cache_contents import (
    clear_way,
    drop_damaged,
    dvc_refusals,
    find_run,
    forget_hashes,
    sound_runs,
)
from flows.engine.earlier_locks import taken_over, write_lock
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

StageStatus = Literal["clean", "stale", "missing"]
Snapshot = Mapping[str, Any]

# what the registered model rests on; the report only describes it
MODEL_STAGES = tuple(stage.name for stage in STAGES if stage.name != "report")


@dataclass(frozen=True)
class Lineage:
    """Where a model came from.

    content_key   one key for data, params, code and base model: equal keys, equal inputs
    data_hash     DVC's hash of data/raw
    code          the declared version of each stage's code
    """

    content_key: str
    data_hash: str
    code: Mapping[str, str]


class StageCache:
    """The workspace's stages as DVC sees them, with overridden parameters in place of those in params.yaml.

    values   top-level keys of params.yaml with this run's overrides
    reading  only to be asked: dvc.yaml and dvc.lock stay as they are
    """

    def __init__(
        self, workspace: Workspace, values: Mapping[str, Any], *, reading: bool = False
    ) -> None:
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.ERROR)
        if not reading:
            write_dvc_yaml(workspace, values)
        self._workspace = workspace
        self._root = workspace.root
        self._values = values
        self._problem = str(values["problem"])
        with dvc_refusals(workspace.root):
            self._repo = Repo(str(workspace.root))
        if not reading:
            self._take_over_lock()

    def close(self) -> None:
        """Close DVC's databases."""
        self._repo.close()

    def status(self, name: str) -> StageStatus:
        """Whether the stage's outs are there and are what its present inputs make."""
        with self._locked():
            return _status(self._stage(name))

    def statuses(self) -> dict[str, StageStatus]:
        """`status` of every stage, in order."""
        with self._locked():
            stages = self._stages()
            return {stage.name: _status(stages[stage.name]) for stage in STAGES}

    def restore(self, name: str) -> bool:
        """Bring back outs that these very inputs made before; False if they never did, are gone, or are not what they were.

        What is brought back is read and compared with its hash; a damaged copy is dropped from the cache.
        """
        with self._locked():
            stage = self._stage(name)
            if not all(dep.exists for dep in stage.deps):
                return False
            made = find_run(self._repo, stage)
            if made is None:
                return False
            if damaged := drop_damaged(made.outs):
                _say(
                    name,
                    f"the copy of {', '.join(damaged)} in DVC's cache is damaged and was dropped; the stage runs again",
                )
            if not made.outs_cached():
                return False
            forget_hashes(
                self._repo, [self._root / path for path in find_stage(name).outs.values()]
            )
            clear_way(made.outs)
            made.checkout(force=True)
            self._save(stage)
            return True

    def read_inputs(self) -> None:
        """Read local sources, base models and adapters in full, whatever their size and time say, before the next status."""
        with self._locked():
            forget_hashes(
                self._repo,
                {
                    Path(dep.fs_path)
                    for stage in self._stages().values()
                    for dep in self._foreign_deps(stage)
                },
            )

    def inputs(self, name: str) -> Snapshot:
        """The stage's inputs before it runs, read in full; PipelineError if one is not what the stage before made of it."""
        with self._locked():
            stages = self._stages()
            made = {
                out.fs_path: (before, out) for before, stage in stages.items() for out in stage.outs
            }
            forget_hashes(
                self._repo, [Path(dep.fs_path) for dep in stages[name].deps if dep.fs_path in made]
            )
            for dep in stages[name].deps:
                before, out = made.get(dep.fs_path, ("", None))
                if out is not None and dep.exists and dep.get_hash() != out.hash_info:
                    raise PipelineError(
                        f"{name}: {dep} is not what {before} made: it was changed, and its size and time were not.",
                        "Run the command again: what was made is brought back from the cache, or made anew.",
                    )
        return self.snapshot(name)

    def snapshot(self, name: str) -> Snapshot:
        """The stage's inputs as they are now; None for one that is not there, which the stage itself will complain of."""
        with self._locked():
            return {
                str(dep): dep.get_hash().value if dep.exists else None
                for dep in self._stage(name).deps
            }

    def commit(self, name: str, before: Snapshot) -> None:
        """Take what the stage has made into the cache and dvc.lock.

        before   its inputs when it started; PipelineError if they changed meanwhile, for then its outs are nobody's
        """
        if (after := self.snapshot(name)) != before:
            changed = ", ".join(sorted(path for path in after if after[path] != before.get(path)))
            raise PipelineError(
                f"{name}: {changed} changed while the stage ran.",
                "Run the command again; what it made was not kept as a result.",
            )
        with self._locked():
            self._save(self._stage(name))

    def check_out_start(self) -> None:
        """Bring back what start.dvc pins where its files are missing or altered, as in a fresh clone; left as it is if it cannot be had."""
        if (self._root / START_FILE).is_file():
            with self._locked():
                self._check_out(self._repo.stage.load_one(path=str(self._root / START_FILE)))

    def pin_start(self, hashes: Mapping[str, str], says: str) -> bool:
        """Make these outs the starting point, from the cache or else the remote; False if they are pinned already.

        hashes  DVC's, of each of START_OUTS
        says    for people: what they are
        Raises WorkspaceError, and changes nothing, if they are neither in the cache nor in the remote.
        """
        with self._locked():
            stage = self._start_stage(hashes, says)
            if not self._check_out(stage):
                raise WorkspaceError(
                    f"{says}: its checkpoint or the tokens that it was trained on are neither in DVC's cache nor in a remote.",
                    "Run `dvc pull` where they were pushed from, or train with finetune.start_from: base.",
                )
            if (self._root / START_FILE).is_file() and hashes == self._pinned():
                return False
            stage.dump()
        write_dvc_yaml(self._workspace, self._values)
        return True

    def unpin_start(self) -> bool:
        """Start from the base model; False if nothing was pinned."""
        pinned = (self._root / START_FILE).is_file()
        with self._locked():
            (self._root / START_FILE).unlink(missing_ok=True)
            shutil.rmtree(self._root / START, ignore_errors=True)
        write_dvc_yaml(self._workspace, self._values)
        return pinned

    def lineage(self) -> Lineage:
        """The content key and data version; ingest must be clean."""
        inputs: dict[str, Any] = {}
        local: set[str] = (
            set()
        )  # sources and base models on this disk: by content, wherever they lie
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
        """Outs that the default remote does not have; all of them where there is no remote."""
        from dvc.config import NoRemoteError

        with self._locked():
            try:
                return sorted(self._repo.status([str(self._root / "dvc.yaml")], cloud=True))
            except NoRemoteError:
                return [str(path) for stage in STAGES for path in stage.outs.values()]

    def _stage(self, name: str) -> Any:
        return self._stages(name)[name]

    def _stages(self, *names: str) -> dict[str, Any]:
        """These, or all, by name, as the stage table has them and dvc.lock knows them."""
        from dvc.dvcfile import load_file
        from dvc.stage.loader import StageLoader

        file = load_file(self._repo, str(self._root / "dvc.yaml"))
        known = taken_over(file.lockfile_contents.get("stages", {}))
        table = dvc_stages(self._workspace, self._values)
        return {
            name: self._with_values(
                StageLoader.load_stage(file, name, table[name], known.get(name))
            )
            for name in names or table
        }

    def _take_over_lock(self) -> None:
        """Write dvc.lock as this Ratchet has it, where one that declared no versions of its code wrote it."""
        from dvc.dvcfile import load_file

        with self._locked():
            contents = load_file(self._repo, str(self._root / "dvc.yaml")).lockfile_contents
            known = taken_over(contents.get("stages", {}))
            if known != contents.get("stages", {}):
                write_lock(self._root / "dvc.lock", contents | {"stages": known})
                LINES.info(
                    "dvc.lock: what an earlier Ratchet made is kept; `ratchet train --force` makes it anew."
                )

    def _foreign_deps(self, stage: Any) -> list[Any]:
        """Deps that no stage makes: sources, base models and adapters on this disk."""
        made = {(self._root / path).resolve() for stage in STAGES for path in stage.outs.values()}
        return [
            dep
            for dep in stage.deps
            if dep not in stage.params and Path(dep.fs_path).resolve() not in made
        ]

    def _with_values(self, stage: Any) -> Any:
        for dep in stage.params:
            # an override counts as if params.yaml held it, and the file stays as it is
            dep.read_params = lambda dep=dep, **_: {
                key: self._values[key] for key in dep.params if key in self._values
            }
        return stage

    def _start_stage(self, hashes: Mapping[str, str], says: str) -> Any:
        from dvc.dvcfile import SingleStageFile
        from dvc.stage.loader import SingleStageLoader

        outs = [
            {"path": path, "hash": "md5", "md5": hashes[name]} for name, path in START_OUTS.items()
        ]
        file = SingleStageFile(self._repo, str(self._root / START_FILE))
        return SingleStageLoader.load_stage(file, {"desc": says, "outs": outs}, None)

    def _pinned(self) -> dict[str, str]:
        stage = self._repo.stage.load_one(path=str(self._root / START_FILE))
        hashes = {Path(out.fs_path): out.hash_info.value for out in stage.outs}
        return {name: hashes[self._root / path] for name, path in START_OUTS.items()}

    def _check_out(self, stage: Any) -> bool:
        """Bring the stage's outs to their places; False, and nothing touched, if they cannot be had."""
        from dvc.exceptions import DvcException

        for out in stage.outs:
            if drop_damaged([out]) or out.changed_cache():
                with suppress(
                    DvcException, FileNotFoundError
                ):  # judged by what came, not by what was said
                    for store, objects in out.get_used_objs(force=True).items():
                        self._repo.cloud.pull(objects, odb=store)
                if drop_damaged([out]) or out.changed_cache():
                    return False
        forget_hashes(self._repo, [Path(out.fs_path) for out in stage.outs])
        clear_way(stage.outs)
        stage.checkout(force=True)
        return True

    def _save(self, stage: Any) -> None:
        stage.save_deps()
        sound_runs(
            self._repo.stage_cache, stage
        )  # DVC takes an entry that is there for what it would write
        stage.save()
        stage.commit()
        stage.dump(update_pipeline=False)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from dvc.repo import lock_repo

        # the run cache resolves 'dvc.yaml' from the working directory
        with (
            dvc_refusals(self._root),
            chdir(self._root),
            lock_repo(self._repo),
            self._repo.scm_context(),
        ):
            self._mend_rwlock()
            yield

    def _mend_rwlock(self) -> None:
        """Remove DVC's list of paths at work if a kill cut its writing short: who wrote it holds nothing any more."""
        file = Path(self._repo.tmp_dir) / "rwlock"
        with suppress(FileNotFoundError):
            try:
                json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                file.unlink()


def _say(stage: str, what: str) -> None:
    LINES.info("%-10s %s", stage, what)


def _status(stage: Any) -> StageStatus:
    if not stage.changed():
        return "clean"
    return "missing" if not all(out.exists for out in stage.outs) else "stale"
