"""deploy/, as far as it can be checked without a Docker engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
VARIABLES = re.compile(r"\$\{(\w+)(:[?-][^}]*)?\}")


def compose() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(COMPOSE))


def services() -> dict[str, Any]:
    return dict(compose()["services"])


def test_the_compose_file_follows_the_compose_specification() -> None:
    checker = str(Path(sys.executable).parent / "check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_from_elsewhere_is_named_by_its_digest() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    images = {service["image"] for service in services().values()}
    assert f"ratchet:{version('ratchet-mlops')}" in images
    foreign = {image for image in images if not image.startswith("ratchet:")}
    foreign |= set(re.findall(r"^FROM (\S+)", dockerfile, flags=re.MULTILINE))
    assert len(foreign) == 3
    for image in foreign:
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_every_service_is_confined() -> None:
    for name, service in services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service["pids_limit"] > 0, name
        assert service["mem_limit"], name
        # Compose copies a secret from a variable into a file system that is read-only
        assert "configs" not in service, name


def test_the_readme_explains_every_variable_and_only_the_workspace_has_no_default() -> None:
    variables = VARIABLES.findall(COMPOSE.read_text())
    explained = re.findall(r"`(\w+)`", (DEPLOY / "README.md").read_text())
    assert {name for name, _ in variables} <= set(explained)
    required = {name for name, default in variables if default.startswith(":?")}
    assert required == {"WORKSPACE"}
    with_default = {name for name, default in variables if default.startswith(":-")}
    assert with_default == {"BIND_ADDRESS", "PUBLIC_HOST", "WORKER_MEMORY"}


def made_secrets(tmp_path: Path) -> Path:
    """deploy/secrets, as make_secrets.py makes it in a copy."""
    shutil.copy(DEPLOY / "make_secrets.py", tmp_path)
    subprocess.run([sys.executable, tmp_path / "make_secrets.py"], check=True, capture_output=True)
    return tmp_path / "secrets"


def test_secrets_are_files_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    folder = made_secrets(tmp_path)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {f"./secrets/{name}" for name in made} == {
        secret["file"] for secret in compose()["secrets"].values()
    }
    values = [value for name, value in made.items() if name != "s3.json"]
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 48
    assert made_secrets(tmp_path) == folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == made
    assert not list(tmp_path.glob("secrets/.*"))


def test_each_service_has_a_user_of_its_own_in_the_s3_store_who_sees_one_bucket(
    tmp_path: Path,
) -> None:
    folder = made_secrets(tmp_path)
    known = {
        identity["name"]: identity
        for identity in json.loads((folder / "s3.json").read_text())["identities"]
    }
    for name, user in {"buckets": "admin", "mlflow": "mlflow", "worker": "dvc"}.items():
        service = services()[name]
        (secret,) = (
            secret["source"]
            for secret in service["secrets"]
            if secret["target"] == "AWS_SECRET_ACCESS_KEY"
        )
        key = {
            "accessKey": service["environment"]["AWS_ACCESS_KEY_ID"],
            "secretKey": (folder / secret).read_text(),
        }
        assert known[user]["credentials"] == [key]
        if user != "admin":
            assert {action.split(":")[1] for action in known[user]["actions"]} == {user}


def test_no_secret_stands_in_a_variable_or_on_a_command_line() -> None:
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            is_secret = re.search("PASSWORD|SECRET|AUTH_STRING", variable)
            assert not is_secret or str(value).startswith("/run/secrets/"), (name, variable)
        command = " ".join(service.get("command", ()))
        assert not re.search(r":[^/\s]+@|password|\$\{?\w*(SECRET|PASSWORD)", command), name


def test_the_entrypoint_turns_secrets_into_variables_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "PGPASSWORD").write_text('it\'s $HOME \\ "secret"\n')
    script = (DEPLOY / "entrypoint.sh").read_text().replace("/run/secrets", str(tmp_path))
    ask = [sys.executable, "-c", "import os, sys; print(os.environ['PGPASSWORD'], sys.argv[1:])"]
    command = ["sh", "-c", script, "entrypoint.sh", *ask, "a b", "c"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "it's $HOME \\ \"secret\" ['a b', 'c']\n"
    shutil.rmtree(tmp_path)
    subprocess.run(["sh", "-c", script, "entrypoint.sh", "true"], check=True)  # no secrets


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
