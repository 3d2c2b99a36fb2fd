"""Known vulnerabilities of what meter is built from: `make audit` asks for them, as `make check` does.

Where the database of vulnerabilities cannot be asked, that is said and is no failure: a machine without a way
out can still check its own work. What was found is a failure, and what was not looked at is named.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
# For one answer, and for all of them.
ANSWER_SECONDS_MAX = 5
SECONDS_MAX = 60
NAMES_SHOWN_MAX = 5


def audit() -> str | None:
    """Ask for the vulnerabilities of everything that is locked; `None` where nobody answers."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(LOCK), "--require-hashes", "--disable-pip"]
    command += ["--timeout", str(ANSWER_SECONDS_MAX), "--progress-spinner", "off", "-f", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout or None


def verdict(report: str | None) -> tuple[int, list[str]]:
    """Return the exit status, and what is to be said."""
    if report is None:
        return 0, ["Not audited: the database of vulnerabilities did not answer."]
    dependencies: Sequence[dict[str, Any]] = json.loads(report)["dependencies"]
    found = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in {_fixes(vulnerability)}"
        for each in dependencies
        for vulnerability in each.get("vulns", ())
    ]
    unknown = [each["name"] for each in dependencies if "skip_reason" in each]
    if len(unknown) == len(dependencies):
        return 0, ["Not audited: the database of vulnerabilities knows none of the packages."]
    said = [*found, f"{len(dependencies) - len(unknown)} packages audited, {len(found)} vulnerabilities."]
    if unknown:
        shown = ", ".join(unknown[:NAMES_SHOWN_MAX])
        said.append(
            f"{len(unknown)} packages were not audited: {shown}{', ...' * (len(unknown) > NAMES_SHOWN_MAX)}"
        )
    return bool(found), said


def _fixes(vulnerability: dict[str, Any]) -> str:
    return ", ".join(vulnerability["fix_versions"]) or "no version yet"


def main() -> int:
    """Ask, say what came of it, and return the exit status."""
    status, said = verdict(audit())
    sys.stdout.write("\n".join(said) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
