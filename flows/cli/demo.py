"""`ratchet demo`: the whole life of a model in a temporary workspace."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import AsJson, app, print_json
from tasks.core.errors import WorkspaceError


@app.command()
def demo(
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            help="Make the workspace there and keep it.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A model's life in three minutes on real data: promoted, refused, replaced, rolled back."""
    started = time.perf_counter()
    root = _workspace_dir(keep)
    from flows.demo.story import tell, use_own_stores
    from tasks.params.workspace import Workspace, cache_dir

    use_own_stores(Workspace(root))
    from flows.demo.material import sentiment_story
    from flows.engine.progress import terminal_progress
    from flows.printing.demo import print_end, print_start, print_step

    steps = []
    with terminal_progress():
        if not as_json:
            print_start()
        for step in tell(sentiment_story(cache_dir(), root), root):
            steps.append(step)
            if not as_json:
                print_step(len(steps), step)
    seconds, held = round(time.perf_counter() - started, 1), all(step.held for step in steps)
    if as_json:
        result: dict[str, Any] = {"held": held, "seconds": seconds}
        result["workspace"] = str(root) if keep else None
        print_json(result | {"steps": [asdict(step) for step in steps]})
    else:
        print_end(held, seconds, keep)
    if not held:
        raise typer.Exit(1)


def _workspace_dir(keep: Path | None) -> Path:
    """An empty directory for the workspace; without --keep, removed at exit."""
    if keep is None:
        root = Path(tempfile.mkdtemp(prefix="ratchet-demo-")).resolve()
        # registered before Prefect is imported: exit handlers run in reverse order, so Prefect's
        # server is stopped by then
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        return root
    root = keep.resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise WorkspaceError(
            f"{root}: already exists and is not empty.", "Name a directory that does not exist yet."
        )
    root.mkdir(parents=True, exist_ok=True)
    return root
