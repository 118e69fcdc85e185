"""Verify the contents of DVC's cache, which DVC itself does not.

DVC trusts read-only objects in the cache, and files whose size and modification time are unchanged.
Uses DVC's internals (dvc is pinned for that); only flows/engine/stage_cache.py uses this module.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.core.errors import WorkspaceError, as_storage_error

COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # DVC's messages colour addresses and commands


def forget_hashes(repo: Any, paths: Iterable[Path]) -> None:
    """Make DVC hash these files, and the files of these directories, anew at its next look."""
    hashes = getattr(repo.state, "hashes", None)  # without a store of hashes it always reads
    if hashes is None:
        return
    with hashes.transact():
        for path in paths:
            for file in path.rglob("*") if path.is_dir() else [path]:
                hashes.delete(str(file))


def remove_obstructions(outs: Iterable[Any]) -> None:
    """Remove files where outs are directories and vice versa: DVC's checkout fails on them."""
    for out in outs:
        path = Path(out.fs_path)
        if out.hash_info.isdir and path.is_file():
            path.unlink()
        elif not out.hash_info.isdir and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def remove_damaged_objects(outs: Iterable[Any]) -> list[str]:
    """Remove cached objects that do not match their hash; returns the outs affected, by name."""
    return [str(out) for out in outs if out.hash_info and not _is_sound(out)]


def find_run(repo: Any, stage: Any) -> Any | None:
    """The stage with the outs that the present inputs produced before; None if they never did.

    Looks in dvc.lock, then in the run cache.
    """
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
    """The run cache's entries for these inputs, newest first; removes entries that are damaged."""
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
        # an entry's file is named by its hash, its directory by the hash of the inputs
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
    """Whether the out's cached objects match their hashes; removes those that do not.

    For a directory these are its list of files and the files.
    """
    if not _matches(out.cache, out.hash_info.value):
        return False
    if not out.hash_info.isdir:
        return True
    oids = [entry.value for _, _, entry in out.get_obj() or ()]
    damaged = [oid for oid in oids if not _matches(out.cache, oid)]
    return not damaged


def _matches(odb: Any, oid: str) -> bool:
    """False, and the object removed, if its bytes differ; a missing one is left for DVC to find."""
    from dvc_data.hashfile.hash import file_md5

    path = odb.oid_to_path(oid)
    if not odb.fs.exists(path) or file_md5(path, odb.fs) == oid.removesuffix(".dir"):
        return True
    odb.fs.remove(path)
    return False


@contextmanager
def dvc_errors(root: Path) -> Iterator[None]:
    """Raise DVC's errors as ours: no repository, lock held by another, unreadable DVC files."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.lock import LockError
    from scmrepo.exceptions import SCMError

    try:
        yield
    except NotDvcRepoError:
        if (root / ".dvc").is_file():
            raise WorkspaceError(
                f"{root / '.dvc'}: a file, wanted DVC's directory.",
                "Move it away and restore the directory (`git checkout .dvc`), "
                "then run the command again.",
            ) from None
        raise WorkspaceError(
            f"{root}: no DVC repository.",
            "Run `ratchet init` for a new workspace, or `dvc init` here.",
        ) from None
    except LockError:
        raise WorkspaceError(
            f"{root}: another DVC process is at work here: it holds .dvc/tmp/lock.",
            "Wait until it ends, then run the command again.",
        ) from None
    except (DvcException, SCMError) as error:
        raise as_storage_error(error) or WorkspaceError(
            f"{root}: DVC: {' '.join(COLOUR.sub('', str(error)).split())[:500]}",
            "Restore the file named (`git checkout FILE`). If you delete dvc.lock, `ratchet train` "
            "makes it again from DVC's cache.",
        ) from error
