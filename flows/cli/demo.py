"""The command that shows what all this is for: demo."""

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
            help="Make the workspace there, and leave it.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A model's life in three minutes, on real data in a workspace of its own: promoted, refused, outdone, rolled back."""
    started = time.perf_counter()
    root = _place(keep)
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
        told: list[dict[str, Any]] = [asdict(step) for step in steps]
        print_json(
            {
                "held": held,
                "seconds": seconds,
                "workspace": str(root) if keep else None,
                "steps": told,
            }
        )
    else:
        print_end(held, seconds, keep)
    if not held:
        raise typer.Exit(1)


def _place(keep: Path | None) -> Path:
    """The workspace's directory, empty; one that nobody asked to keep is removed when all is over."""
    if keep is None:
        root = Path(tempfile.mkdtemp(prefix="ratchet-demo-")).resolve()
        # before Prefect is imported: what is registered last is called first, so its server is stopped by then
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        return root
    root = keep.resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise WorkspaceError(
            f"{root}: is there already, and not empty.", "Name a directory that is not there yet."
        )
    root.mkdir(parents=True, exist_ok=True)
    return root
