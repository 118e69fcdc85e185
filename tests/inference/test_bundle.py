from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import MAX_LENGTH, PROBLEM, Exported
from tiny import LABELS, tiny_rows

from tasks.core.errors import BundleError
from tasks.core.files import sha256_file
from tasks.inference import bundle as module
from tasks.inference.bundle import Limits, open_bundle, write_manifest
from tasks.inference.calibration import Calibration
from tasks.inference.predictor import Predictor
from tasks.problems import load_problem, problem_names
from tasks.shipping.bundle_writer import assemble_bundle, seal_bundle

ROWS = {
    "text": [*tiny_rows(50, seed=3)["text"], "", "good " * 5000, "🙂 שלום\u2028", "a\x00b", "[SEP]"]
}
LIMITS = Limits(max_length=MAX_LENGTH, labels=LABELS)
REPAIRS_IN_VAIN = ("missing", "altered", "truncated")


@pytest.fixture(scope="module")
def shipped(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the static recipe; read only."""
    bundle = tmp_path_factory.mktemp("shipped") / "bundle"
    assemble_bundle(
        bundle, exported.candidates / "int8-static" / "model.onnx", exported.tokens,
        exported.checkpoint, problem=PROBLEM, labels=LABELS, recipe="int8-static",
        calibration=Calibration(1.5), threads=1,
    )  # fmt: skip
    seal_bundle(bundle, {"macro_f1": 0.9})
    return bundle


@pytest.fixture
def bundle(shipped: Path, tmp_path: Path) -> Path:
    """A bundle of the test's own."""
    return Path(shutil.copytree(shipped, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def predictor(shipped: Path) -> Predictor:
    return Predictor(shipped, load_problem(PROBLEM))


def test_a_bundle_says_what_it_is(shipped: Path) -> None:
    info = open_bundle(shipped, problem_names())
    assert (info.problem, info.recipe, info.labels) == (PROBLEM, "int8-static", LABELS)
    assert info.metrics == {"macro_f1": 0.9}
    assert info.limits == LIMITS
    assert info.settings.temperature == 1.5
    assert set(info.files) == {file.name for file in shipped.iterdir()} - {"manifest.json"}


def test_config_is_plain_hugging_face(shipped: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(shipped)
    assert config.id2label == dict(enumerate(LABELS))
    assert AutoTokenizer.from_pretrained(shipped)("good")["input_ids"]


def test_no_file_of_a_bundle_is_a_pickle(shipped: Path) -> None:
    for file in shipped.rglob("*"):
        start = file.read_bytes()[:2]
        assert start != b"PK", "a zip, as torch saves pickles in"
        assert start[:1] != b"\x80", "a pickle's first byte"
        assert file.suffix in {".onnx", ".json", ".txt", ".model"}


@pytest.mark.parametrize(
    "name", ["model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("harm", REPAIRS_IN_VAIN)
def test_a_file_that_was_touched_is_refused_by_name(bundle: Path, name: str, harm: str) -> None:
    content = (bundle / name).read_bytes()
    middle = len(content) // 2
    if harm == "missing":
        (bundle / name).unlink()
    elif harm == "altered":
        (bundle / name).write_bytes(
            content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        )
    else:
        (bundle / name).write_bytes(content[:-1])
    with pytest.raises(
        BundleError, match=f"{name}: {'missing' if harm == 'missing' else 'altered, found sha256'}"
    ):
        open_bundle(bundle)
    with pytest.raises(BundleError):
        Predictor(bundle, load_problem(PROBLEM))


@pytest.mark.parametrize("name", ["extra.py", "deep/extra.bin", ".hidden"])
def test_a_file_that_is_not_listed_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("import os")
    with pytest.raises(BundleError, match=f"{name}: not in the manifest"):
        open_bundle(bundle)


def test_all_that_is_wrong_is_said_at_once(bundle: Path) -> None:
    (bundle / "config.json").unlink()
    (bundle / "extra").write_text("")
    with pytest.raises(
        BundleError, match=r"2 of its files.*\n.*config.json: missing.*\n.*extra: not in"
    ):
        open_bundle(bundle)


def test_symbolic_links_are_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "model.onnx").rename(tmp_path / "model.onnx")
    (bundle / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match=r"model.onnx: is a symbolic link"):
        open_bundle(bundle)


def test_an_unlisted_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "more").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="more: a symbolic link"):
        open_bundle(bundle)


def test_a_bundle_reached_through_a_link_is_fine(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(shipped)
    assert open_bundle(tmp_path / "current").recipe == "int8-static"


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "..\\secret", ""])
def test_paths_that_leave_the_directory_are_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_text("")
    edit_json(
        bundle / "manifest.json",
        lambda manifest: manifest["files"].update({name: {"sha256": "0" * 64, "bytes": 0}}),
    )
    with pytest.raises(BundleError, match="leaves the directory"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": 99}',
        '{"format": 1, "files": {}}',
        '{"format": 1, "files": {"model.onnx": 3}}',
    ],
)
def test_a_manifest_that_is_none_is_refused(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BundleError):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ({"temperature": 0}, "temperature"), ({"temperature": "1"}, "temperature"),
        ({"temperature": 1e9}, "temperature"), ({"temperature": True}, "temperature"),
        ({"max_length": 0}, "max_length"), ({"max_length": 10**9}, "max_length"),
        ({"max_length": 1.5}, "max_length"), ({"threads": 10_000}, "threads"),
        ({"threads": -1}, "threads"),
        ({"pad_token_id": -1}, "pad_token_id"), ({"pad_token_id": 2**40}, "pad_token_id"),
        ({"bias": [1e300]}, "bias"), ({"bias": "x"}, "bias"),
        ({"labels": None}, "labels"), ({"labels": ["x" * 2000]}, "labels"),
        ({"output_name": ""}, "output_name"), ({"problem": 3}, "problem"),
        ({"surprise": 1}, "surprise: unknown key"),
    ],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused_by_name(
    bundle: Path, key: dict[str, Any], says: str
) -> None:
    edit_json(bundle / "config.json", lambda config: config["ratchet"].update(key))
    write_manifest(bundle, recipe="fp32", metrics={}, limits=LIMITS)
    with pytest.raises(
        BundleError, match=rf"config.json: 1 of its values cannot be used:\n  ratchet\.{says}"
    ):
        open_bundle(bundle)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(bundle: Path, value: str) -> None:
    text = (bundle / "config.json").read_text()
    (bundle / "config.json").write_text(
        text.replace('"temperature": 1.5', f'"temperature": {value}')
    )
    write_manifest(bundle, recipe="fp32", metrics={}, limits=LIMITS)
    with pytest.raises(BundleError, match=r"config\.json: 1 of its values cannot be used"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "format"), ({"recipe": ""}, "recipe"),
        ({"metrics": {"f1": "0.9"}}, "metrics.f1"),
        ({"limits": {"max_length": 0, "labels": []}}, "limits.max_length"),
        ({"limits": {}}, "limits.max_length"),
        ({"extra": 1}, "extra: unknown key"), ({"files": []}, "files"),
        ({"files": {"model.onnx": {"sha256": "x", "bytes": 1}}}, "files.model.onnx.sha256"),
        ({"files": {"model.onnx": {"sha256": "0" * 64, "bytes": -1}}}, "files.model.onnx.bytes"),
        ({"files": {f"{n}": {"sha256": "0" * 64, "bytes": 1} for n in range(2000)}}, "files"),
    ],
)  # fmt: skip
def test_a_manifest_out_of_bounds_is_refused_by_name(
    bundle: Path, change: dict[str, Any], says: str
) -> None:
    edit_json(bundle / "manifest.json", lambda manifest: manifest.update(change))
    with pytest.raises(
        BundleError, match=rf"manifest.json: \d+ of its values cannot be used:\n  {says}"
    ):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "\xff", '{"format": 1e999}', " " * (65 * 2**20)],
    ids=["deep", "bytes", "number", "long"],
)
@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_json_that_nobody_wrote_is_refused(bundle: Path, name: str, text: str) -> None:
    (bundle / name).write_text(text, encoding="latin-1")
    if name == "config.json":
        write_manifest(bundle, recipe="fp32", metrics={}, limits=LIMITS)
    with pytest.raises(BundleError):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"labels": ["negative", "positive"]},
            "config.json has labels for 2 outputs, the model has 3",
        ),
        ({"bias": [0.0, 1.0]}, "config.json has 2 biases, the model has 3 outputs"),
        ({"output_name": "loss"}, "the model has no output 'loss'"),
        ({"pad_token_id": 100_000}, "the tokenizer has no token 100000"),
    ],
)
def test_files_that_do_not_belong_together_are_told(
    bundle: Path, change: dict[str, Any], says: str
) -> None:
    edit_json(bundle / "config.json", lambda config: config["ratchet"].update(change))
    write_manifest(bundle, recipe="fp32", metrics={}, limits=LIMITS)
    with pytest.raises(BundleError, match=says):
        Predictor(bundle, load_problem(PROBLEM))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"junk", b"{}"])
def test_a_model_or_tokenizer_that_is_none_is_told(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    write_manifest(bundle, recipe="fp32", metrics={}, limits=LIMITS)
    with pytest.raises(
        BundleError, match=r"onnxruntime cannot run its model|its tokenizer\.json cannot be read"
    ):
        Predictor(bundle, load_problem(PROBLEM))


def test_a_bundle_gets_no_more_threads_than_there_are_cores(bundle: Path) -> None:
    edit_json(bundle / "config.json", lambda config: config["ratchet"].update({"threads": 256}))
    write_manifest(bundle, recipe="fp32", metrics={}, limits=LIMITS)
    assert Predictor(bundle, load_problem(PROBLEM)).model.threads <= (os.cpu_count() or 1)


def test_a_manifest_made_anew_is_not_the_registered_one(bundle: Path) -> None:
    registered = open_bundle(bundle).sha256
    assert (
        open_bundle(bundle, registered=registered).sha256
        == registered
        == sha256_file(bundle / "manifest.json")
    )
    edit_json(
        bundle / "config.json",
        lambda config: config["ratchet"].update({"labels": list(LABELS)[::-1]}),
    )
    write_manifest(bundle, recipe="int8-static", metrics={"macro_f1": 0.9}, limits=LIMITS)
    assert open_bundle(bundle).labels == LABELS[::-1]  # by itself it is sound
    with pytest.raises(BundleError, match="is not the bundle that was registered"):
        open_bundle(bundle, registered=registered)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_what_is_used_was_hashed_as_it_was_read(bundle: Path, name: str) -> None:
    """A file that is replaced between the check and its use is refused, not used."""
    info = open_bundle(bundle)
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name}: altered"):
        Predictor(info, load_problem(PROBLEM))


def test_the_model_for_many_texts_is_checked_again_as_it_is_read(bundle: Path) -> None:
    predictor = Predictor(bundle, load_problem(PROBLEM))
    (bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model\.onnx: altered"):
        _ = predictor.model.single_threaded


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match=rf"{name}: missing|there is no {name}"):
        open_bundle(bundle)


def test_a_bundle_of_an_unknown_problem_is_refused(bundle: Path) -> None:
    edit_json(
        bundle / "config.json", lambda config: config["ratchet"].update({"problem": "mind-reading"})
    )
    write_manifest(bundle, recipe="fp32", metrics={}, limits=LIMITS)
    with pytest.raises(
        BundleError, match=r"unknown problem type 'mind-reading', known: .*text-classification"
    ):
        open_bundle(bundle, problem_names())
    with pytest.raises(BundleError, match="mind-reading"):
        Predictor(bundle, load_problem(PROBLEM))


@pytest.mark.parametrize("directory", ["nowhere", "."])
def test_what_is_no_bundle_is_said_so(tmp_path: Path, directory: str) -> None:
    with pytest.raises(BundleError, match=r"no bundle, there is no manifest.json"):
        open_bundle(tmp_path / directory)


def test_predictions_keep_the_rows_order(predictor: Predictor) -> None:
    outputs = predictor.outputs(ROWS)
    back = predictor.outputs({"text": ROWS["text"][::-1]})
    np.testing.assert_allclose(back[::-1], outputs, atol=1e-4)


def test_a_row_s_outputs_do_not_depend_on_its_batch(predictor: Predictor) -> None:
    outputs = predictor.outputs(ROWS)
    alone = np.concatenate([predictor.outputs({"text": [text]}) for text in ROWS["text"]])
    np.testing.assert_allclose(alone, outputs, atol=1e-4)


def test_no_rows_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.outputs({"text": []}).shape == (0, len(LABELS))
    assert predictor.predict({"text": []}) == []


def test_labels_are_not_needed_to_predict_and_unknown_ones_do_no_harm(predictor: Predictor) -> None:
    rows = {"text": ["good room", "bad room"], "label": ["wonderful", "horrid"]}
    np.testing.assert_array_equal(
        predictor.outputs(rows), predictor.outputs({"text": rows["text"]})
    )


def test_predictions_are_scaled_by_the_bundle_s_temperature(predictor: Predictor) -> None:
    problem = load_problem(PROBLEM)
    wanted = problem.decoding.decode(predictor.outputs(ROWS), ROWS, LABELS, Calibration(1.5))
    assert predictor.predict(ROWS) == wanted
    assert wanted != problem.decoding.decode(predictor.outputs(ROWS), ROWS, LABELS, Calibration())


def test_predicting_imports_neither_torch_nor_transformers(shipped: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from tasks.inference.predictor import Predictor\n"
        "from tasks.problems import load_problem\n"
        f"print(Predictor(Path({str(shipped)!r}), load_problem({PROBLEM!r}))"
        ".predict({'text': ['good room']})[0]['label'])\n"
        "assert not {'torch', 'transformers', 'mlflow', 'onnx'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout.strip()) == ("", "positive")


def edit_json(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text())
    edit(value)
    file.write_text(json.dumps(value))


def test_a_file_that_changes_between_two_reads_is_told(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = module._read_small

    def read_later(directory: Path, name: str) -> bytes:
        if name == module.CONFIG:
            (directory / name).write_text("{}")
        return read(directory, name)

    monkeypatch.setattr(module, "_read_small", read_later)
    with pytest.raises(BundleError, match="changed while it was being read"):
        open_bundle(bundle)
