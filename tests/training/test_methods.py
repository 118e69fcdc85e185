"""The laws of fine-tuning methods: what each one changes, and that merging keeps the outputs.

An adapter belongs to its base.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from architectures import ARCHITECTURES, FEED_FORWARD, LAYERS, LEFT_TO_RIGHT, body_dir
from tiny import LABELS

from tasks.core.errors import ParamsError
from tasks.core.seeds import seed_everything
from tasks.params.finetuning import FinetuneParams, Method
from tasks.problems import load_problem
from tasks.training.methods.checkpoints import ADDITIONS, load_checkpoint, save_checkpoint
from tasks.training.methods.compatibility import check_method, check_positions
from tasks.training.methods.qlora import quantize
from tasks.training.methods.registry import apply_method
from tasks.training.methods.tuning import Tuning
from tasks.training.networks.architecture import (
    feed_forward_outputs,
    is_causal,
    layer_stack,
    linear_modules,
)
from tasks.training.networks.device import in_bfloat16
from tasks.training.networks.weights import trained_parameters
from tasks.training.optimizer import parameter_groups

PROBLEM = load_problem("text-classification")
METHODS: tuple[Method, ...] = tuple(method for method in get_args(Method) if method != "qlora")
UNMERGED = {"prefix-tuning", "prompt-tuning", "p-tuning", "adapter"}
SIZES = {"rank": 2, "virtual_tokens": 3, "bottleneck": 4}
# the second row is shorter
BATCH = {
    "input_ids": torch.tensor([[2, 17, 28, 39, 41, 3], [2, 17, 52, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
}


def params(method: Method, **values: Any) -> FinetuneParams:
    return FinetuneParams.model_validate({"method": method, "sizes": SIZES, **values})


def tuned(method: Method, architecture: str = "bert", **values: Any) -> Tuning:
    seed_everything(0)
    base = body_dir(architecture)
    return apply_method(
        PROBLEM.objective.load_model(base, LABELS, 0.0), base, params(method, **values), 10
    )


def shaken(tuning: Tuning) -> Tuning:
    """As if it had been trained: every weight that is trained has moved."""
    with torch.no_grad():
        for parameter in trained_parameters(tuning.model).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return tuning


def logits(model: Any, batch: dict[str, torch.Tensor] = BATCH) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**batch)["logits"]
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_parts_of_any_architecture_are_found(architecture: str) -> None:
    model = PROBLEM.objective.load_model(body_dir(architecture), LABELS)
    names = list(linear_modules(model))
    assert len(layer_stack(model)) == LAYERS
    assert [
        name for name in feed_forward_outputs(model) if name.endswith(FEED_FORWARD[architecture])
    ] == feed_forward_outputs(model)
    assert len(feed_forward_outputs(model)) == LAYERS
    assert len(names) >= 4 * LAYERS
    assert all(name.startswith(model.base_model_prefix) for name in names)
    assert is_causal(model) == (architecture in LEFT_TO_RIGHT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_computes_what_was_trained(
    architecture: str, method: Method, tmp_path: Path
) -> None:
    if (architecture, method) == ("llama", "bitfit"):
        with pytest.raises(ParamsError, match="no biases"):
            tuned(method, architecture)
        return
    tuning = shaken(tuned(method, architecture))
    wanted = logits(tuning.model)
    alone = logits(tuning.model, {name: values[1:, :4] for name, values in BATCH.items()})
    torch.testing.assert_close(alone, wanted[1:], atol=1e-5, rtol=0)  # padding changes nothing
    save_checkpoint(tuning, tmp_path)
    torch.testing.assert_close(
        logits(load_checkpoint(PROBLEM.objective, tmp_path, LABELS)), wanted, atol=1e-5, rtol=0
    )
    assert (tmp_path / ADDITIONS).exists() == (method in UNMERGED)


@pytest.mark.parametrize("method", METHODS)
def test_only_what_the_method_names_changes(method: Method, tmp_path: Path) -> None:
    seed_everything(0)
    before = {
        name: weight.clone()
        for name, weight in PROBLEM.objective.load_model(body_dir("bert"), LABELS)
        .state_dict()
        .items()
    }
    tuning = tuned(method)
    optimizer = torch.optim.SGD(trained_parameters(tuning.model).values(), 1.0)
    for _ in range(2):  # LoRA's first step moves one of its factors alone
        torch.nn.functional.cross_entropy(
            tuning.model(**BATCH)["logits"], torch.tensor([0, 1])
        ).backward()
        optimizer.step()
        optimizer.zero_grad()
    save_checkpoint(tuning, tmp_path)
    after = PROBLEM.objective.load_model(tmp_path, LABELS).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {
        f"{name}.weight"
        for name in linear_modules(PROBLEM.objective.load_model(body_dir("bert"), LABELS))
    }
    head = {"classifier.weight", "classifier.bias"}
    biases = {name for name in before if name.endswith("bias")}
    if method == "full":
        assert len(changed) == len(before)
    elif method == "frozen" or method in UNMERGED:
        assert changed == head
    elif method == "bitfit":
        assert head < changed <= biases | head
    elif method == "ia3":
        assert linear | head <= changed <= linear | biases | head
    else:
        assert changed == linear | head


def test_frozen_freezes_what_is_said_else_all_but_the_head() -> None:
    def trained(**values: Any) -> set[str]:
        return set(trained_parameters(tuned("frozen", **values).model))

    everything = set(trained_parameters(tuned("full").model))
    assert trained() == trained(freeze_layers="all") == {"classifier.weight", "classifier.bias"}
    assert trained(freeze_embeddings=True) == {
        name for name in everything if "embeddings" not in name
    }
    assert trained(freeze_layers=1) == {
        name for name in everything if "embeddings" not in name and "layer.0." not in name
    }
    with pytest.raises(ParamsError, match="has 2"):
        trained(freeze_layers=3)


def test_frozen_embeddings_get_no_gradients_whatever_the_method() -> None:
    for method in METHODS:
        tuning = tuned(method, freeze_embeddings=True)
        assert not [name for name in trained_parameters(tuning.model) if "embeddings" in name]


def test_learning_rates_fall_from_layer_to_layer_and_the_head_has_its_own() -> None:
    tuning = tuned(
        "full", learning_rate=1e-3, layer_decay=0.5, head_learning_rate=1e-2, weight_decay=0.1
    )
    groups = parameter_groups(
        tuning,
        params(
            "full", learning_rate=1e-3, layer_decay=0.5, head_learning_rate=1e-2, weight_decay=0.1
        ),
    )
    names = {id(parameter): name for name, parameter in tuning.model.named_parameters()}
    rates = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert set(rates) == set(names.values())
    assert rates["classifier.weight"] == (1e-2, 0.1)
    assert rates["classifier.bias"] == (1e-2, 0.0)
    assert (
        rates["bert.pooler.dense.weight"]
        == rates["bert.encoder.layer.1.output.dense.weight"]
        == (1e-3, 0.1)
    )
    assert rates["bert.encoder.layer.0.output.dense.bias"] == (5e-4, 0.0)
    assert rates["bert.embeddings.word_embeddings.weight"] == (2.5e-4, 0.1)
    assert groups[0]["lr"] == 1e-3  # the one that curves show


def test_layers_decay_for_adapters_too() -> None:
    tuning = tuned("lora", layer_decay=0.5)
    groups = parameter_groups(tuning, params("lora", learning_rate=1e-3, layer_decay=0.5))
    names = {id(parameter): name for name, parameter in tuning.model.named_parameters()}
    rates = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    assert {rate for name, rate in rates.items() if "layer.0." in name} == {5e-4}
    assert {rate for name, rate in rates.items() if "layer.1." in name} == {1e-3}


def test_named_target_modules_alone_are_changed() -> None:
    tuning = tuned("lora", sizes=SIZES | {"target_modules": ["query", "value"]})
    assert {name.split(".")[-4] for name in trained_parameters(tuning.model) if "lora" in name} == {
        "query",
        "value",
    }
    with pytest.raises(ParamsError, match="Did you mean 'query'") as caught:
        tuned("lora", sizes=SIZES | {"target_modules": ["quary"]})
    assert "dense" in caught.value.remedy


def test_a_language_models_own_head_is_not_trained() -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    kinds: dict[str, Any] = {
        "gpt2": AutoModelForCausalLM,
        "llama": AutoModelForCausalLM,
        "bert": AutoModelForMaskedLM,
    }
    for architecture, kind in kinds.items():
        whole = kind.from_config(ARCHITECTURES[architecture]())
        stored = body_dir(f"{architecture}")
        whole.save_pretrained(copy := stored.parent / f"whole-{architecture}")
        tuning = apply_method(kind.from_pretrained(copy), copy, params("lora"), 10)
        assert all("lora" in name for name in trained_parameters(tuning.model))


def test_a_head_that_the_base_has_not_is_trained_also_where_its_output_is_the_embedding() -> None:
    from transformers import AutoModelForMaskedLM

    base = body_dir("bert")
    tuning = apply_method(
        AutoModelForMaskedLM.from_pretrained(base, attn_implementation="eager"),
        base,
        params("lora"),
        10,
    )
    head = {name for name in trained_parameters(tuning.model) if "lora" not in name}
    assert "cls.predictions.transform.dense.weight" in head
    assert not [name for name in head if "embeddings" in name]


def test_virtual_tokens_leave_no_places_in_the_outputs() -> None:
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    base = body_dir("bert")
    for method in ("prefix-tuning", "prompt-tuning", "p-tuning"):
        encoder = AutoModelForTokenClassification.from_pretrained(base, num_labels=5)
        decoder = AutoModelForCausalLM.from_config(ARCHITECTURES["llama"]())
        for model in (encoder, decoder):
            found = logits(apply_method(model, base, params(method), 10).model)
            assert found.shape[:2] == BATCH["input_ids"].shape


def test_a_decoder_with_virtual_tokens_still_reads_left_to_right() -> None:
    from transformers import AutoModelForCausalLM

    tuning = apply_method(
        AutoModelForCausalLM.from_config(ARCHITECTURES["llama"]()),
        body_dir("llama"),
        params("prefix-tuning"),
        10,
    )
    ids = BATCH["input_ids"][:1]
    other = torch.cat((ids[:, :-1], ids[:, -1:] + 1), 1)
    one, two = (
        logits(tuning.model, {"input_ids": given, "attention_mask": torch.ones_like(given)})
        for given in (ids, other)
    )
    torch.testing.assert_close(one[:, :-1], two[:, :-1])
    assert not torch.allclose(one[:, -1], two[:, -1])


@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning", "p-tuning"])
@pytest.mark.parametrize("architecture", sorted(LEFT_TO_RIGHT))
def test_a_decoder_with_virtual_tokens_goes_on_from_a_cache(
    architecture: str, method: Method
) -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]())
    model = shaken(apply_method(base, body_dir(architecture), params(method), 10)).model.eval()
    ids = BATCH["input_ids"][:1].repeat(2, 1)
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=True)
        past = model(input_ids=ids[:, :2], use_cache=True).past_key_values
        assert past.layers[0].keys.shape[2] == 2
        found = model(
            input_ids=ids[:, 2:],
            past_key_values=past,
            attention_mask=torch.ones_like(ids),
            use_cache=True,
        )
    torch.testing.assert_close(found.logits, whole.logits[:, 2:])
    for layer, wanted in zip(
        found.past_key_values.layers, whole.past_key_values.layers, strict=True
    ):
        torch.testing.assert_close(layer.keys, wanted.keys)
        torch.testing.assert_close(layer.values, wanted.values)


@pytest.mark.parametrize("architecture", sorted(LEFT_TO_RIGHT))
def test_a_decoder_with_virtual_tokens_writes_what_it_would_read(architecture: str) -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]())
    model = shaken(
        apply_method(base, body_dir(architecture), params("prefix-tuning"), 10)
    ).model.eval()
    prompt, padded = torch.tensor([[17, 28, 39]]), torch.tensor([[0, 0, 17, 28, 39]])
    written = model.generate(
        prompt,
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=199,
    )[0, 3:]
    beside = model.generate(
        padded,
        attention_mask=(padded != 0).long(),
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=199,
    )[0, 5:]
    for token, other in zip(written, beside, strict=True):
        found = logits(model, {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)})[
            0, -1
        ]
        found[199] = -torch.inf
        assert token == other == found.argmax()
        prompt = torch.cat((prompt, token[None, None]), 1)


def test_virtual_tokens_stand_in_front_of_every_sequence_packed_into_a_row() -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_config(ARCHITECTURES["llama"]())
    model = shaken(apply_method(base, body_dir("llama"), params("prefix-tuning"), 10)).model
    one, two = torch.tensor([[2, 17, 28, 3]]), torch.tensor([[2, 52, 3]])
    alone = [
        logits(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        for ids in (one, two)
    ]
    seen = torch.block_diag(torch.ones(4, 4).tril(), torch.ones(3, 3).tril()).bool()
    mask = torch.where(seen, torch.tensor(0.0), torch.tensor(-1e9))[None, None]
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    packed = logits(
        model,
        {"input_ids": torch.cat((one, two), 1), "attention_mask": mask, "position_ids": positions},
    )
    torch.testing.assert_close(packed, torch.cat(alone, 1))


def test_nothing_to_train_is_a_users_mistake() -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(ARCHITECTURES["gpt2"]())
    with pytest.raises(ParamsError, match="no head of its own"):
        apply_method(model, body_dir("gpt2"), params("frozen"), 10)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"method": "lora", "freeze_layers": 1}, "freeze_layers"),
        ({"method": "full", "adapter": "a"}, "adapter"),
        ({"method": "lora", "adapter": "a", "start_from": "champion"}, "start_from"),
    ],
)
def test_choices_that_do_not_go_together_are_told(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FinetuneParams.model_validate(values)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_qlora_without_a_card_is_told_with_the_remedy() -> None:
    with pytest.raises(ParamsError, match="CUDA device") as caught:
        check_method(PROBLEM.name, PROBLEM.objective, params("qlora"), "auto")
    assert "lora" in caught.value.remedy


def test_more_virtual_tokens_than_places_are_told() -> None:
    bert, roberta = (
        PROBLEM.objective.load_model(body_dir(name), LABELS) for name in ("bert", "roberta")
    )
    check_positions(bert, params("prompt-tuning"), 63)
    check_positions(bert, params("lora"), 66)
    check_positions(roberta, params("prompt-tuning"), 62)
    for model, length in ((bert, 64), (roberta, 63)):
        with pytest.raises(ParamsError, match="virtual_tokens"):
            check_positions(model, params("prompt-tuning"), length)


def test_a_gpu_without_bfloat16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(ParamsError, match="does not support bfloat16"):
        in_bfloat16("bf16", "cuda")
    assert not in_bfloat16("auto", "cuda")


def test_what_cannot_be_quantized_is_told() -> None:
    model = PROBLEM.objective.load_model(body_dir("gpt2"), LABELS)
    with pytest.raises(ParamsError, match="a Conv1D, to 4 bits"):
        quantize(model, linear_modules(model))
