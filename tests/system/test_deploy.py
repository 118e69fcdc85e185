"""deploy/, as far as it can be checked without a Docker engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
VARIABLES = re.compile(r"\$\{(\w+)(:[?-][^}]*)?\}")


def services() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(COMPOSE)["services"])


def test_the_compose_file_follows_the_compose_specification() -> None:
    checker = str(Path(sys.executable).parent / "check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_is_pinned() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    images = {service["image"] for service in services().values()}
    images |= set(re.findall(r"^FROM (\S+)", dockerfile, flags=re.MULTILINE))
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]+", image), image


def test_the_readme_explains_every_variable_and_secrets_have_no_default() -> None:
    variables = VARIABLES.findall(COMPOSE.read_text())
    explained = re.findall(r"`(\w+)`", (DEPLOY / "README.md").read_text())
    assert {name for name, _ in variables} <= set(explained)
    required = {name for name, default in variables if default.startswith(":?")}
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert required == {"POSTGRES_PASSWORD", *keys, "WORKSPACE"}
    with_default = {name for name, default in variables if default.startswith(":-")}
    assert with_default == {"BIND_ADDRESS", "PUBLIC_HOST"}


def test_a_service_waits_until_what_it_needs_is_healthy_or_done() -> None:
    known = services()
    dependencies = {
        (needed, condition["condition"], "healthcheck" in known[needed])
        for service in known.values()
        for needed, condition in service.get("depends_on", {}).items()
    }
    assert dependencies == {
        ("postgres", "service_healthy", True),
        ("s3", "service_healthy", True),
        ("buckets", "service_completed_successfully", False),
        ("mlflow", "service_healthy", True),
        ("prefect", "service_healthy", True),
    }
