"""Loading base models: complete bodies only, shards like a single file, pins of every byte."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, body_dir
from safetensors.torch import load_file, save_file
from tampered import flip
from test_adapters import run, tokens  # noqa: F401, the fixture is asked for by name
from tiny import LABELS, make_base

from tasks.core.errors import SourceError
from tasks.core.files import sha256_file
from tasks.data.sources.base_models import other_sha256, weights_sha256
from tasks.data.sources.fetching import resolve_model
from tasks.params.schema import BaseModelParams
from tasks.problems import load_problem
from tasks.tokenization import save_tokenizer
from tasks.training.networks.architecture import untrained_parameters

PROBLEM = load_problem("text-classification")
Tensors = dict[str, torch.Tensor]
SAVED: dict[str, Any] = {"max_shard_size": "20KB"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    return make_base(tmp_path / "base")


@pytest.fixture
def sharded(base: Path, tmp_path: Path) -> Path:
    """The same model, sharded."""
    from transformers import BertModel

    directory = tmp_path / "sharded"
    shutil.copytree(base, directory, ignore=shutil.ignore_patterns("*.safetensors"))
    BertModel.from_pretrained(base).save_pretrained(directory, **SAVED)
    assert len(list(directory.glob("model-*.safetensors"))) > 2
    return directory


def edit_weights(directory: Path, edit: Callable[[Tensors], object]) -> None:
    weights = load_file(directory / "model.safetensors")
    edit(weights)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_missing_weight_of_a_body_is_told(name: str, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(body_dir(name), tmp_path / "base"))
    whole = load_file(directory / "model.safetensors")
    names = [key for key in sorted(whole) if "pooler" not in key]  # a base may lack the pooler
    assert len(names) > 15
    norms = [key for key in names if "norm" in key.lower()]
    for lost in (names[0], names[len(names) // 2], names[-1], *norms[:1]):
        weights = {key: value for key, value in whole.items() if key != lost}
        save_file(weights, directory / "model.safetensors", {"format": "pt"})
        message = rf"1 of the \d+ weights .* are not in its files: [\w.]*{lost}\."
        with pytest.raises(SourceError, match=message):
            PROBLEM.objective.load_model(directory, LABELS)


def test_renamed_weights_are_told_by_both_names(base: Path) -> None:
    def rename(weights: Tensors) -> None:
        for key in [key for key in weights if key.startswith("encoder.layer.1.")]:
            weights[key.replace("encoder.layer", "encoder.block")] = weights.pop(key)

    edit_weights(base, rename)
    with pytest.raises(SourceError) as error:
        PROBLEM.objective.load_model(base, LABELS)
    message = error.value.message
    missing = "16 of the 39 weights of BertForSequenceClassification are not in its files"
    assert f"{base}: {missing}: bert.encoder.layer.1." in message
    assert "They hold 16 unknown ones: encoder.block.1." in message


def test_weights_of_other_shapes_than_the_configuration_says_are_told(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    message = r"6 of its weights do not have the shapes .*: \S+ \[64\], wanted \[48\]"
    with pytest.raises(SourceError, match=message):
        PROBLEM.objective.load_model(base, LABELS)


@pytest.mark.parametrize("problem", ["text-classification", "token-classification", "masked-lm"])
def test_a_head_and_a_pooler_may_be_missing(base: Path, problem: str) -> None:
    def drop_pooler(weights: Tensors) -> None:
        for key in [key for key in weights if "pooler" in key]:
            del weights[key]

    edit_weights(base, drop_pooler)
    model = load_problem(problem).objective.load_model(base, LABELS)
    stored = load_file(base / "model.safetensors")
    loaded = dict(model.base_model.named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in stored.items())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"bias": None}, r"1 of the \d+ weights .* bert\.pooler\.dense\.bias\."),
        ({"weight": "pooling"}, r"are not in its files: .*pooler\.dense\.weight"),
        ({"weight": "pool", "bias": "pool"}, r"They hold 2 unknown ones: pool\.dense\.bias"),
    ],
    ids=["a part missing", "a part renamed", "renamed"],
)
def test_a_pooler_that_is_there_is_taken_or_told(
    base: Path, names: dict[str, str | None], message: str
) -> None:
    """`names` maps parameters of the pooler to the modules they move to; None: it is removed."""

    def edit(weights: Tensors) -> None:
        for parameter, module in names.items():
            weight = weights.pop(f"pooler.dense.{parameter}")
            if module:
                weights[f"{module}.dense.{parameter}"] = weight

    edit_weights(base, edit)
    with pytest.raises(SourceError, match=message):
        PROBLEM.objective.load_model(base, LABELS)


def test_layers_that_the_configuration_leaves_out_are_told(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["num_hidden_layers"] -= 1
    (base / "config.json").write_text(json.dumps(config))
    message = r"hold 16 weights that its config.json has no place for: encoder\.layer\.1\."
    with pytest.raises(SourceError, match=message):
        PROBLEM.objective.load_model(base, LABELS)


def test_files_that_say_they_hold_a_head_must_hold_it(base: Path, tmp_path: Path) -> None:
    PROBLEM.objective.load_model(base, LABELS).save_pretrained(tmp_path / "checkpoint")
    PROBLEM.objective.load_model(tmp_path / "checkpoint", LABELS)
    edit_weights(tmp_path / "checkpoint", lambda weights: weights.pop("classifier.weight"))
    with pytest.raises(SourceError, match=r"1 of the 41 weights .*: classifier\.weight\."):
        PROBLEM.objective.load_model(tmp_path / "checkpoint", LABELS)


def test_a_head_for_other_labels_is_drawn_anew(base: Path, tmp_path: Path) -> None:
    PROBLEM.objective.load_model(base, ("ham", "spam")).save_pretrained(tmp_path / "two")
    model = PROBLEM.objective.load_model(tmp_path / "two", LABELS)
    head = {"classifier.weight", "classifier.bias"}
    assert set(untrained_parameters(model, tmp_path / "two")) == head
    same = PROBLEM.objective.load_model(tmp_path / "two", ("ham", "spam"))
    assert untrained_parameters(same, tmp_path / "two") == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b""),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "nope"}'),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 99),
    ],
)
def test_files_that_are_no_model_are_told(base: Path, name: str, content: bytes) -> None:
    (base / name).write_bytes(content)
    with pytest.raises(SourceError, match="cannot be read as a model"):
        PROBLEM.objective.load_model(base, LABELS)


def changed(name: str, **values: Any) -> Callable[[Path], object]:
    """Change top-level values of a JSON file of the base."""

    def change(base: Path) -> None:
        content = json.loads((base / name).read_text()) | values
        (base / name).write_text(json.dumps(content))

    return change


DAMAGED_CONFIGS = {
    "a list": lambda base: (base / "config.json").write_text("[]"),
    "another type": changed("config.json", model_type="nope"),
    "a text for a size": changed("config.json", hidden_size="x"),
    "no heads": changed("config.json", num_attention_heads=0),
    "more than any memory": changed("config.json", vocab_size=10**14),
    "an unknown function": changed("config.json", hidden_act="nope"),
}
DAMAGED_TOKENIZERS = {
    "empty": lambda base: (base / "tokenizer.json").write_bytes(b""),
    "cut": lambda base: (base / "tokenizer.json").write_text(
        (base / "tokenizer.json").read_text()[:500]
    ),
    "binary": lambda base: (base / "tokenizer.json").write_bytes(b"\x00\xff" * 50),
    "a list": lambda base: (base / "tokenizer.json").write_text("[]"),
    "no model": changed("tokenizer.json", model=None),
    "another model": changed("tokenizer.json", model={"type": "Nope"}),
    "another version": changed("tokenizer.json", version="9.0"),
    "no words": changed("tokenizer.json", model={"type": "WordPiece", "vocab": {}}),
    "another class": changed("tokenizer_config.json", tokenizer_class=["x"]),
}


@pytest.mark.parametrize("damage", DAMAGED_CONFIGS)
def test_a_damaged_configuration_is_one_message(base: Path, damage: str) -> None:
    DAMAGED_CONFIGS[damage](base)
    with pytest.raises(SourceError, match=f"{base}: its files cannot be read as a model: ."):
        PROBLEM.objective.load_model(base, LABELS)


@pytest.mark.parametrize("damage", DAMAGED_TOKENIZERS)
def test_a_damaged_tokenizer_is_one_message(base: Path, tmp_path: Path, damage: str) -> None:
    DAMAGED_TOKENIZERS[damage](base)
    with pytest.raises(SourceError, match=f"{base}: its tokenizer.json or .* cannot be read: ."):
        save_tokenizer(base, {}, tmp_path / "tokenizer")


def test_shards_are_the_model_that_one_file_is(
    base: Path,
    sharded: Path,
    tokens: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    single = PROBLEM.objective.load_model(base, LABELS)
    several = PROBLEM.objective.load_model(sharded, LABELS)
    for name, parameter in single.base_model.named_parameters():
        assert torch.equal(parameter, dict(several.base_model.named_parameters())[name])
    assert set(untrained_parameters(several, sharded)) == set(untrained_parameters(single, base))
    out = tmp_path / "out"
    facts = {model.name: run(model, tokens, out / model.name) for model in (base, sharded)}
    trained = [out / name / "checkpoint" / "model.safetensors" for name in facts]
    assert sha256_file(trained[0]) == sha256_file(trained[1])
    assert facts["base"]["base_sha256"] == sha256_file(base / "model.safetensors")
    command = ["sh", "-c", "sha256sum model-*.safetensors | sha256sum"]
    printed = subprocess.run(command, cwd=sharded, capture_output=True, check=True)
    assert facts["sharded"]["base_sha256"] == printed.stdout.split()[0].decode()
    assert facts["sharded"]["base_files"] == other_sha256(sharded)
    assert "model.safetensors.index.json" in facts["sharded"]["base_files"]


def test_shards_are_pinned_and_told_when_one_is_missing(sharded: Path, tmp_path: Path) -> None:
    pin = BaseModelParams(path=str(sharded), sha256=weights_sha256(sharded))
    assert resolve_model(pin, tmp_path, tmp_path) == sharded
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    flip(shard, 0.9)
    message = r"model-\*\.safetensors: its sha256 differs from the pinned one"
    with pytest.raises(SourceError, match=message):
        resolve_model(pin, tmp_path, tmp_path)
    shard.unlink()
    with pytest.raises(SourceError, match=f"it has no {shard.name}"):
        resolve_model(BaseModelParams(path=str(sharded)), tmp_path, tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        "{}",
        "[]",
        "{",
        '{"weight_map": {"a": "../model-1.safetensors"}}',
        '{"weight_map": {"a": 3}}',
    ],
)
def test_an_index_that_is_none_is_told(sharded: Path, index: str, tmp_path: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text(index)
    message = r"model\.safetensors\.index\.json: wanted a `weight_map`"
    with pytest.raises(SourceError, match=message):
        resolve_model(BaseModelParams(path=str(sharded)), tmp_path, tmp_path)


def test_a_pin_is_of_every_byte_of_every_file(base: Path, tmp_path: Path) -> None:
    pin = BaseModelParams(path=str(base), sha256=weights_sha256(base), files=other_sha256(base))
    files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(file.name for file in base.iterdir()) == files
    assert resolve_model(pin, tmp_path, tmp_path) == base
    for name in files:
        differs = f"{name}: its sha256 differs from the pinned one"
        for position in (0.0, 0.3, 0.99):
            flip(base / name, position)  # its size and time stay the same
            with pytest.raises(SourceError, match=differs):
                resolve_model(pin, tmp_path, tmp_path)
            flip(base / name, position)
            assert resolve_model(pin, tmp_path, tmp_path) == base
    (base / "added_tokens.json").write_text("{}")
    added = r"not the pinned files: added_tokens\.json is not pinned"
    with pytest.raises(SourceError, match=added):
        resolve_model(pin, tmp_path, tmp_path)
    (base / "added_tokens.json").unlink()
    (base / "tokenizer_config.json").unlink()
    missing = r"not the pinned files: tokenizer_config\.json is missing"
    with pytest.raises(SourceError, match=missing):
        resolve_model(pin, tmp_path, tmp_path)


def test_the_usual_base_model_s_pins_name_all_its_files() -> None:
    files: Any = PROBLEM.defaults.base_model["files"]
    params = BaseModelParams.model_validate(PROBLEM.defaults.base_model)
    assert params.files == files
    tokenizer = {"special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert set(files) == {"config.json"} | tokenizer


def test_a_tokenizer_of_python_alone_is_told(base: Path, tmp_path: Path) -> None:
    config = json.dumps({"tokenizer_class": "CanineTokenizer"})
    (base / "tokenizer_config.json").write_text(config, encoding="utf-8")
    with pytest.raises(SourceError, match="has no fast tokenizer"):
        save_tokenizer(base, {}, tmp_path / "tokenizer")
