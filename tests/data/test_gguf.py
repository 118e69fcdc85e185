"""A GGUF file as a base model: converted once, into a model of the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import made_once
from tampered import flip
from tiny_chat import CHATML, make_chat_base

from tasks.core.errors import SourceError
from tasks.core.files import sha256_file
from tasks.data.sources.fetching import resolve_model
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import load_tokenizer
from tasks.params.schema import BaseModelParams
from tasks.problems import load_problem

PROBLEM = load_problem("chat")
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def base() -> Path:
    return made_once("make_chat_base", make_chat_base)


def write_gguf(file: Path, without: tuple[str, ...] = ("lm_head.weight",)) -> Any:
    """Write the tiny Llama as llama.cpp's converter does, in float32; return the model.

    Its output layer is tied to the embedding, so the file has no `lm_head.weight`.
    """
    import gguf

    model = PROBLEM.objective.load_model(base(), ()).eval()
    config, fast = model.config, json.loads((base() / "tokenizer.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(fast["model"]["vocab"], key=fast["model"]["vocab"].get)
    special = {token["content"] for token in fast["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in fast["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHATML)
    for name, tensor in model.state_dict().items():
        if name not in without:
            writer.add_tensor(_name(name), _permuted(name, tensor, config).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _name(name: str) -> str:
    plain = name.removeprefix("model.")
    if plain.startswith("layers."):
        _, layer, rest = plain.split(".", 2)
        return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"
    return {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[plain]


def _permuted(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """Reorder q and k for llama.cpp's RoPE, which pairs other dimensions than Hugging Face's."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if part in name:
            halves = tensor.reshape(count, 2, -1, tensor.shape[1])
            return halves.transpose(1, 2).reshape(tensor.shape)
    return tensor


def test_a_weight_that_a_gguf_file_lacks_is_told(tmp_path: Path) -> None:
    lost = "model.layers.1.mlp.down_proj.weight"
    write_gguf(tmp_path / "tiny.gguf", ("lm_head.weight", lost))
    message = rf"1 of the \d+ weights of LlamaForCausalLM are not in its files: {lost}"
    with pytest.raises(SourceError, match=rf"tiny\.gguf: {message}"):
        resolve_model(BaseModelParams(path="./tiny.gguf"), tmp_path, tmp_path / "cache")


def test_a_damaged_conversion_is_made_anew(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    base = BaseModelParams(path="./tiny.gguf")
    directory = resolve_model(base, tmp_path, tmp_path / "cache")
    whole = {file.name: file.read_bytes() for file in directory.iterdir()}
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        flip(directory / name)
        assert resolve_model(base, tmp_path, tmp_path / "cache") == directory
        assert {file.name: file.read_bytes() for file in directory.iterdir()} == whole


def test_a_gguf_file_becomes_the_model_that_it_was(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    model = write_gguf(file)
    params = BaseModelParams(path="./tiny.gguf", sha256=sha256_file(file))
    directory = resolve_model(params, tmp_path, tmp_path / "cache")
    assert resolve_model(params, tmp_path, tmp_path / "cache") == directory
    converted = PROBLEM.objective.load_model(directory, ()).eval()
    rows = {"messages": PROBLEM.decoding.example()["messages"]}
    ours, theirs = (
        encode_rows(PROBLEM.encoding, load_tokenizer(model_dir), rows, ())["input_ids"]
        for model_dir in (base(), directory)
    )
    assert ours == theirs
    input_ids = torch.tensor(ours[:1])
    with torch.inference_mode():
        expected = model(input_ids=input_ids)["logits"]
        logits = converted(input_ids=input_ids)["logits"]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_what_is_no_gguf_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"nothing of the kind" * 100)
    cases = {
        r"bad\.gguf: cannot be read as GGUF": {"path": "./bad.gguf"},
        "no such file": {"path": "./none.gguf"},
        "sha256": {"path": "./bad.gguf", "sha256": "0" * 64},
        "cannot be loaded from https://": {"path": "https://example.org/x.gguf"},
    }
    for message, values in cases.items():
        with pytest.raises(SourceError, match=message):
            resolve_model(BaseModelParams.model_validate(values), tmp_path, tmp_path / "cache")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "good.gguf")
    loader = "transformers.modeling_gguf_pytorch_utils.is_gguf_available"
    monkeypatch.setattr(loader, lambda *_: False)
    with pytest.raises(SourceError, match=r"good\.gguf: reading GGUF needs the package") as told:
        resolve_model(BaseModelParams(path="./good.gguf"), tmp_path, tmp_path / "cache")
    assert told.value.remedy.startswith("pip install gguf==")
