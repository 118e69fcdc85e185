"""params.yaml: every mistake is reported at once, with what was wanted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.core.errors import ParamsError
from tasks.params.schema import Params, apply_overrides, parse, read_yaml, save_overrides

MINIMAL: dict[str, Any] = {
    "problem": "text-classification",
    "model_name": "m",
    "labels": ["a", "b"],
    "base_model": {"path": "./base"},
    "ingest": {"sources": [{"url": "rows.csv"}]},
}


def test_a_list_is_not_called_too_short_for_a_wrong_element() -> None:
    with pytest.raises(ParamsError, match="1 value is wrong") as caught:
        parse(MINIMAL | {"ingest": {"sources": [{"url": 5}]}})
    assert "ingest.sources.0.url" in caught.value.message
    with pytest.raises(ParamsError, match="at least 1 item"):
        parse(MINIMAL | {"ingest": {"sources": []}})


def test_of_several_options_the_one_that_the_message_names_is_blamed() -> None:
    overrides = ["finetune.loss=contrastive", "finetune.method=lora"]
    with pytest.raises(ParamsError) as caught:
        parse(apply_overrides(MINIMAL, overrides), overrides=overrides)
    assert caught.value.message.startswith("-S finetune.loss=contrastive: ")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml: no such file"):
        read_yaml(tmp_path / "params.yaml")


def test_every_mistake_is_reported_at_once() -> None:
    overrides = [
        "finetune.learning_rat=1",
        "finetune.epochs=-1",
        "tokenize.max_length=lots",
        "model_name=a b",
        "split.test=0.95",
    ]
    with pytest.raises(ParamsError) as caught:
        parse(apply_overrides(MINIMAL, overrides))
    message = caught.value.message
    assert "5 values are wrong" in message
    for part in (
        "finetune.learning_rat: unknown key. Did you mean 'learning_rate'?",
        "finetune.epochs",
        "found -1",
        "tokenize.max_length",
        "'lots'",
        "model_name",
    ):
        assert part in message


@pytest.mark.parametrize("key", ["verify.min_speedup", "verify.budget_seconds"])
def test_a_key_of_an_earlier_version_says_what_became_of_it(key: str) -> None:
    message = f"{key}: no longer a setting: .* ships, however fast; delete the line"
    with pytest.raises(ParamsError, match=message):
        parse(apply_overrides(MINIMAL, [f"{key}=1"]))


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ParamsError, match="base_model: missing"):
        parse({key: value for key, value in MINIMAL.items() if key != "base_model"})


def test_a_hub_id_must_be_pinned() -> None:
    with pytest.raises(ParamsError, match="revision"):
        parse(MINIMAL | {"base_model": {"path": "bert-base-uncased"}})
    pinned = {"path": "bert-base-uncased", "revision": "86b5e09"}
    assert parse(MINIMAL | {"base_model": pinned}).base_model.revision == "86b5e09"


def test_splits_are_named_by_all_sources_or_by_none() -> None:
    sources = [{"url": "a.csv", "split": "train"}, {"url": "b.csv"}]
    with pytest.raises(ParamsError, match="split"):
        parse(MINIMAL | {"ingest": {"sources": sources}})


def test_params_are_frozen() -> None:
    params = parse(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1


def test_an_override_is_read_as_yaml_and_leaves_the_values_alone() -> None:
    overrides = ["finetune.learning_rate=3e-5", "ingest.sources.0.format=csv", "labels=[x, y]"]
    changed = apply_overrides(MINIMAL, overrides)
    assert changed["finetune"] == {"learning_rate": 3e-5}
    assert changed["ingest"]["sources"][0] == {"url": "rows.csv", "format": "csv"}
    assert changed["labels"] == ["x", "y"]
    assert "finetune" not in MINIMAL
    assert MINIMAL["ingest"]["sources"] == [{"url": "rows.csv"}]


@pytest.mark.parametrize(
    "override", ["seed", "=1", "ingest.sources.7.url=x", "seed.deeper=1", "seed=[1"]
)
def test_a_wrong_override_is_a_users_mistake(override: str) -> None:
    with pytest.raises(ParamsError):
        apply_overrides(MINIMAL | {"seed": 1}, [override])


def test_saving_an_override_keeps_comments_and_order(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    text = "# top\nseed: 42  # the seed\nfinetune:\n  epochs: 1  # times\n  learning_rate: 5.0e-5\n"
    file.write_text(text, encoding="utf-8")
    save_overrides(file, ["finetune.epochs=3"])
    assert file.read_text(encoding="utf-8") == text.replace("epochs: 1", "epochs: 3")


def test_saving_an_override_changes_one_line_of_a_fresh_file(tmp_path: Path) -> None:
    """Files of `ratchet init` have nulls with comments, quoted labels and lists."""
    file = tmp_path / "params.yaml"
    before = (Path(__file__).parents[2] / "examples/spam/params.yaml").read_text(encoding="utf-8")
    before = before.replace("labels:", "unused: null  # with a comment\nlabels:", 1)
    file.write_text(before, encoding="utf-8")
    save_overrides(file, ["model_name=other"])
    after = file.read_text(encoding="utf-8")
    shared = io.StringIO()
    YAML().dump({"a": None}, shared)  # as DVC writes dvc.lock, in the same process
    assert shared.getvalue() == "a:\n"
    changed = set(after.splitlines()) ^ set(before.splitlines())
    assert len(changed) == 2
    assert all(line.startswith("model_name: ") for line in changed)


@pytest.mark.parametrize(
    ("text", "says"), [("a: [1", "not valid YAML"), ("- 1\n", "wanted keys"), ("", "wanted keys")]
)
def test_a_file_that_is_no_mapping_is_a_users_mistake(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError, match=says):
        read_yaml(file)


def test_latin_1_params_are_a_users_mistake(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes("model_name: caf\xe9\n".encode("latin-1"))
    with pytest.raises(ParamsError, match="UTF-8"):
        read_yaml(file)


def test_defaults_of_the_schema_are_valid() -> None:
    assert Params.model_validate(parse(MINIMAL).model_dump(by_alias=True)) == parse(MINIMAL)
