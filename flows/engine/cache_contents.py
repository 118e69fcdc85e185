"""Whether what DVC keeps is what it says: it trusts a cached object that is read-only, and a file whose size and time are as they were.

These are DVC's internals (dvc is pinned for that); flows/engine/stage_cache.py alone uses them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.core.errors import WorkspaceError, as_storage_error


def forget_hashes(repo: Any, paths: Iterable[Path]) -> None:
    """Have DVC read these files in full, those of directories included, the next time that it asks for their hashes."""
    known = getattr(repo.state, "hashes", None)  # without a place to keep them in it always reads
    if known is None:
        return
    with known.transact():
        for path in paths:
            for file in path.rglob("*") if path.is_dir() else [path]:
                known.delete(str(file))


def clear_way(outs: Iterable[Any]) -> None:
    """Remove a file where an out has its directory, and a directory where it has its file: DVC's checkout stumbles over them."""
    for out in outs:
        path = Path(out.fs_path)
        if out.hash_info.isdir and path.is_file():
            path.unlink()
        elif not out.hash_info.isdir and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def drop_damaged(outs: Iterable[Any]) -> list[str]:
    """Remove from the cache every object of these outs whose bytes are not those that it is called by; the outs that had such, by name."""
    return [str(out) for out in outs if out.hash_info and not _is_sound(out)]


def find_run(repo: Any, stage: Any) -> Any | None:
    """The stage with the outs that these very inputs made before, by dvc.lock, else by the run cache; None if they never did."""
    from dvc.stage.cache import _can_hash
    from dvc.stage.serialize import to_single_stage_lockfile

    if not _can_hash(stage):
        return None
    if (
        not stage.changed_stage()
        and stage.deps_cached()
        and all(out.hash_info for out in stage.outs)
    ):
        entry = to_single_stage_lockfile(stage)
    else:
        stage.save_deps()
        entry = next(iter(sound_runs(repo.stage_cache, stage)), None)
    return repo.stage_cache._create_stage(entry, wdir=stage.wdir) if entry else None


def sound_runs(runs: Any, stage: Any) -> list[Any]:
    """The run cache's entries for these inputs, newest first; one that is not what its name says is removed."""
    from dvc.exceptions import DvcException
    from dvc.stage.cache import _can_hash, _get_cache_hash, _get_stage_hash

    if not _can_hash(stage):
        return []
    key, sound = _get_stage_hash(stage), []
    files = [file for file in Path(runs._get_cache_dir(key)).glob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        entry = None
        with suppress(DvcException, ValueError):
            entry = runs._load_cache(key, file.name)
        if (
            entry
            and _get_cache_hash(entry) == file.name
            and _get_cache_hash(dict(entry), key=True) == key
        ):
            sound.append(entry)
        else:
            file.unlink(missing_ok=True)
    return sound


def _is_sound(out: Any) -> bool:
    """False, and the damaged objects removed, if the out's list of files or one of the files is not what it is called by."""
    if not _holds(out.cache, out.hash_info.value):
        return False
    if not out.hash_info.isdir:
        return True
    damaged = [
        entry.value for _, _, entry in out.get_obj() or () if not _holds(out.cache, entry.value)
    ]
    return not damaged


def _holds(odb: Any, oid: str) -> bool:
    """False, and the object removed, if it is there with other bytes; one that is missing is for DVC to find so."""
    from dvc_data.hashfile.hash import file_md5

    path = odb.oid_to_path(oid)
    if not odb.fs.exists(path) or file_md5(path, odb.fs) == oid.removesuffix(".dir"):
        return True
    odb.fs.remove(path)
    return False


@contextmanager
def dvc_refusals(root: Path) -> Iterator[None]:
    """DVC's errors as ours: not its repository, another at work, a file of its own that it cannot read."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.lock import LockError
    from scmrepo.exceptions import SCMError

    try:
        yield
    except NotDvcRepoError:
        if (root / ".dvc").is_file():
            raise WorkspaceError(
                f"{root / '.dvc'}: a file, where DVC's directory belongs.",
                "Move it away and restore the directory (`git checkout .dvc`), then run the command again.",
            ) from None
        raise WorkspaceError(
            f"{root}: not under DVC.", "Run `ratchet init` for a new workspace, or `dvc init` here."
        ) from None
    except LockError as error:
        raise WorkspaceError(
            f"{root}: DVC is at work here: {' '.join(str(error).split())}",
            "Wait for the other `dvc` to end.",
        ) from None
    except (DvcException, SCMError) as error:
        raise as_storage_error(error) or WorkspaceError(
            f"{root}: DVC: {' '.join(str(error).split())[:500]}",
            "Restore the file that it names (`git checkout FILE`). A dvc.lock that is deleted is made again from DVC's cache by "
            "`ratchet train`.",
        ) from error
