"""YAML texts: DVC reads what we read, and whatever is wrong with a text is one message."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml as parse_as_dvc

from tasks.core.errors import ParamsError
from tasks.params.schema import apply_overrides, read_yaml
from tasks.params.yaml_text import parse_yaml

ROOT = Path(__file__).resolve().parents[2]
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")


def nested(times: int, line: str) -> str:
    """`a0` … each ten times the one before."""
    return "".join(line.format(i=i, last=i - 1) for i in range(1, times))


FAULTY = {
    "prompts: [Hello! How are you?, b]\n": "line 1",
    "seed: 1\nday: 2026-02-30\n": "line 2: 2026-02-30: day is out of range",
    "seed: !!bool maybe\n": "line 1: maybe: no value of its tag",
    "seed: !!int abc\n": "line 1: abc",
    f"seed: 1{'0' * 5000}\n": "line 1: 1000",
    "a: &a [*a]\n": r"\*a stands within &a, line 1",
    "a: &a\n  b: *a\n": r"\*a stands within &a, line 2",
    "a: *nowhere\n": "undefined alias",
    f"a: {'[' * 5000}{']' * 5000}\n": "more than 50 levels, line 1",
    "".join(f"{' ' * i}k:\n" for i in range(2000)): "more than 50 levels, line 50",
    "a0: &a0 [x, x]\n" + nested(30, "a{i}: &a{i} [" + "*a{last}, " * 9 + "x]\n"): "200,000 values",
    "a0: &a0 {k: v}\n"
    + nested(30, "a{i}: &a{i} {{<<: [" + "*a{last}, " * 9 + "]}}\n"): "200,000 values",
    f"a: [{'1,' * 1_000_000}1]\n": "200,000 values",
    f"a: !!binary {'A' * 5_000_000}\n": "5.0 MB, wanted at most",
    "a: !!python/object/apply:os.system ['true']\n": "constructor",
    "a: 1\na: 2\n": "duplicate key",
    "a: 1\n---\na: 2\n": "single document",
    "a:\n\t- 1\n": "token",
    "a: \x00\n": "not allowed",
}


@pytest.mark.parametrize("text", FAULTY, ids=lambda text: repr(text[:30]))
def test_a_fault_is_one_message_that_says_where(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError, match=FAULTY[text]) as caught:
        read_yaml(file)
    assert str(file) in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("value", ["2026-02-30", "!!bool maybe", "&a [*a]", "[Hi?, {]", "[" * 99])
def test_a_faulty_override_names_the_option(value: str) -> None:
    with pytest.raises(ParamsError, match="-S seed="):
        apply_overrides({"seed": 1}, [f"seed={value}"])


def test_aliases_and_merged_keys_are_read() -> None:
    text = "a: &a {x: 1, y: 2.5e-3}\nb: {<<: *a, x: 2}\nc: [*a, yes, on, 012, ~]\nd: 1:30\n"
    a = {"x": 1, "y": 0.0025}
    expected = {"a": a, "b": {**a, "x": 2}, "c": [a, "yes", "on", 12, None], "d": "1:30"}
    assert parse_yaml(text, "here") == parse_as_dvc(text, "here") == expected


def test_what_is_read_dvc_reads_alike() -> None:
    """On 400 copies of params.yaml, each with a few random changes."""
    chance, read = random.Random(0), 0
    for _ in range(400):
        characters = list(PARAMS)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(characters))
            characters[place : place + chance.randint(0, 2)] = chance.choice(
                [
                    "",
                    "?",
                    ": ",
                    "- ",
                    "[",
                    "]",
                    "{",
                    "&a ",
                    "*a",
                    "!!int ",
                    "'",
                    '"',
                    "\n",
                    "\t",
                    "#",
                ]
            )
        text = "".join(characters)
        try:
            values = parse_yaml(text, "here")
        except ParamsError:
            continue
        read += 1
        assert values == parse_as_dvc(text, "here")
    assert 50 < read < 400
