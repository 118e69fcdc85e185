"""Make the secrets of deploy/compose.yaml, once: a file each in deploy/secrets/.

    python3 deploy/make_secrets.py

A file that exists stays as it is. The directory is for its owner alone; the files in it may be
read, because a container's user is not the one who made them.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "secrets"
SINGLE = ("postgres", "mlflow_admin", "mlflow_sessions")
# what each user of the S3 store may do
S3_ACTIONS = {
    "admin": ["Admin"],
    "mlflow": [f"{action}:mlflow" for action in ("Read", "Write", "List", "Tagging")],
    "dvc": [f"{action}:dvc" for action in ("Read", "Write", "List", "Tagging")],
}


def main() -> None:
    """Write what is missing and print what is there."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    FOLDER.chmod(0o700)
    for name in SINGLE:
        write(name, secrets.token_hex(24))
    write("prefect", f"ratchet:{secrets.token_hex(24)}")
    for user in S3_ACTIONS:
        write(f"s3_{user}", secrets.token_hex(24))
    write("s3.json", json.dumps({"identities": [identity(user) for user in S3_ACTIONS]}))
    print(f"{FOLDER}: {', '.join(sorted(path.name for path in FOLDER.iterdir()))}")


def identity(user: str) -> dict[str, object]:
    """The user in SeaweedFS's configuration; the access key is the user's name."""
    credentials = {"accessKey": user, "secretKey": (FOLDER / f"s3_{user}").read_text()}
    return {"name": user, "actions": S3_ACTIONS[user], "credentials": [credentials]}


def write(name: str, secret: str) -> None:
    """Write the file, whole or not at all, unless it exists."""
    path = FOLDER / name
    if not path.exists():
        part = FOLDER / f".{name}.part"
        part.write_text(secret)
        part.chmod(0o444)
        part.replace(path)


if __name__ == "__main__":
    main()
