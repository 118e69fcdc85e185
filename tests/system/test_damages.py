"""Damaged files of a workspace: `ratchet train` repairs them, or fails with one message.

There is never a traceback, and never another model.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from jinja2 import Environment
from workspaces import copy_workspace, ratchet, ratchet_json, states

from benchmarks.robustness.damages import DAMAGES
from tasks.core.errors import DamagedError, PipelineError
from tasks.core.files import read_json, read_table, sha256_file


@pytest.fixture(scope="module")
def pristine(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a workspace with nothing to do, a copy of its files); MLflow's paths lead to the first."""
    root = copy_workspace(template, tmp_path_factory.mktemp("damaged") / "reviews")
    assert ratchet_json(root, "train")["state"] == "cached"
    return root, Path(shutil.copytree(root, root.parent / "pristine", symlinks=True))


# one damage a file, of varying kind; `python -m benchmarks robustness` tries them all
_PATHS = {
    path: [name for name, (of, *_) in DAMAGES.items() if of == path]
    for path in dict.fromkeys(path for path, *_ in DAMAGES.values())
}
SOME = [names[number % len(names)] for number, names in enumerate(_PATHS.values())]


@pytest.mark.parametrize("name", SOME)
def test_what_is_damaged_is_repaired_or_told(pristine: tuple[Path, Path], name: str) -> None:
    root, kept = pristine
    shutil.rmtree(root)
    shutil.copytree(kept, root, symlinks=True)
    path, damage, outcome = DAMAGES[name]
    damage(root / path)
    done = ratchet(root, "train", "--json", code=None)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == {"repaired": 0, "told": 2}[outcome], done.stdout + done.stderr
    if outcome == "told":
        error = json.loads(done.stdout)["error"]
        assert Path(path).name in error["message"]
        assert error["remedy"]
        return
    result = json.loads(done.stdout)
    assert result["version"] == 1
    assert "ran" not in states(result).values()
    if (kept / path).is_file() and not path.startswith(".ratchet"):
        assert sha256_file(root / path) == sha256_file(kept / path)


def test_the_table_of_damages_is_whole() -> None:
    assert len(DAMAGES) == 64


def test_reading_says_which_file_is_damaged_and_how(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    for damaged, says in (
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[1]", "found list"),
        (b"[" * 100_000, "nested"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(DamagedError, match=says) as caught:
            read_json(file)
        assert str(file) in caught.value.message
    file.write_text('{"a": {"b": 1}}')
    content = read_json(file)
    assert content == {"a": {"b": 1}}
    assert "c" not in content
    assert content["a"].get("c") is None
    with pytest.raises(DamagedError, match="there is no 'c'"):
        content["a"]["c"]
    template = Environment(autoescape=True).from_string("{{ a.c or 'none' }}")
    assert template.render(content) == "none"
    with pytest.raises(DamagedError, match="Parquet"):
        read_table(file)
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.parquet")
    assert issubclass(DamagedError, PipelineError)
