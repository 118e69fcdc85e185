"""Look the pinned packages up among the published vulnerabilities, with pip-audit.

    python .ci/audit.py constraints.txt [OPTION OF pip-audit]...

Exit codes: 0 none is known; 1 some are; 3 the look-up failed, for instance without a network, or
knew only a part of the packages. pip-audit itself exits with 0 if it could look nothing up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Print what was found and return the exit code."""
    file, *options = sys.argv[1:]
    program = str(Path(sys.executable).with_name("pip-audit"))
    ours = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [program, "--requirement", file, *ours, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(done.stderr.strip().splitlines()[-1])
        print("Nothing was audited: is there a network?")
        return 3
    return report(packages)


def report(packages: list[dict[str, Any]]) -> int:
    """Print the vulnerabilities and what was not looked up; the exit code."""
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [
        (package["name"], package["version"], vulnerability)
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]
    for name, version, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
        print(f"{name} {version}: {vulnerability['id']}, fixed in {fixed}")
    audited = len(packages) - len(skipped)
    print(f"{audited} of {len(packages)} packages audited, {len(found)} vulnerabilities known.")
    if not audited:
        print("Nothing was audited: is there a network?")
    elif skipped:
        print(f"Not audited: {', '.join(skipped)}")
    if found:
        return 1
    return 3 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
