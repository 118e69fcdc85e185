"""`ratchet` with a tiny story in place of the demo's: tiny_story.py BASE MIN_VALUE COMMAND..."""

from __future__ import annotations

import sys
from pathlib import Path

from tiny import tiny_rows
from workspaces import FAST

from flows.cli.main import main
from flows.demo import material as demo_material

TEST, VALIDATION, FIRST, ALL = 300, 100, 120, 1000


def tell_tiny(base: Path, min_value: str) -> None:
    """Run the demo on tiny rows; with a `min_value` above 1 no model is good enough."""
    rows = tiny_rows(ALL)
    pass_rates = "{invariance: null, directional: null, minimum_functionality: null}"
    settings = [(setting, "a test") for setting in FAST]
    settings += [
        ("labels=[negative, neutral, positive]", "a misspelt label is among the rows on purpose"),
        ("validate.actions={unknown_label: quarantine}", "it is set aside"),
        ("evaluate.baseline=false", "time"),
        ("evaluate.behaviour.rows=20", "time"),
        ("export.recipes=[]", "time"),
        ("promotion.max_ece=null", "the first model has seen too few rows to be calibrated"),
        ("promotion.max_latency_ratio=null", "the model takes no time that could be measured"),
        (f"promotion.min_pass_rates={pass_rates}", "it knows no such words"),
        (f"promotion.min_value={min_value}", "a test"),
    ]
    pairs = list(zip(rows["text"], rows["label"], strict=True))
    story = demo_material.DemoSetup(pairs, base, TEST, VALIDATION, FIRST, settings)
    demo_material.sentiment_story = lambda cache, root, seed=42: story


if __name__ == "__main__":
    tell_tiny(Path(sys.argv[1]), sys.argv[2])
    sys.argv[1:3] = []
    main()
