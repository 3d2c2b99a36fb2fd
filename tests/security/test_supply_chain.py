"""What meter is built from: pinned, hashed, little, and nothing that runs by itself."""

import json
import re
import site
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.security import audit

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
# Files that Python runs at every start: of the editable install, and what installers bring along.
KNOWN_PTH = re.compile(
    r"(?:_editable_impl_|__editable__)?[\w.\-]*meter[\w.\-]*\.pth|distutils-precedence\.pth|a1_coverage\.pth"
)
DIRECT_MAX = 20


def pinned(lock: str) -> dict[str, str]:
    """Return what a lock file pins, and the lines behind each pin."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9._-]+(?:\[[\w,]+\])?==[^ \\\n]+)((?:.*\\\n.*)*)$", text, re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_is_pinned_and_hashed(lock: str) -> None:
    """Each package of a lock file has one version and the hashes of its files; nothing comes by URL."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    names = [line for line in text.splitlines() if line and line[0] not in "# -"]

    found = pinned(lock)

    assert len(found) == len(names) > 10
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", hashes) for hashes in found.values())
    assert "://" not in text
    assert "--index-url" not in text


def test_everything_is_installed_by_its_hash() -> None:
    """Neither the Makefile nor the image installs a package whose hash is not checked."""
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
        installs = [line for line in text.splitlines() if re.search(r"(?:\$\(PIP\)|/pip) install", line)]
        assert installs
        for line in installs:
            assert "--require-hashes" in line or "--no-deps" in line, line


def test_direct_dependencies_are_few() -> None:
    """Each package that meter names is in the lock file, and there are no more than a person can know."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[\[<>=! ]", each)[0].lower() for each in project["dependencies"]}
    locked = {re.split(r"[\[=]", each)[0].lower() for each in pinned("requirements.lock")}

    assert len(named) <= DIRECT_MAX
    assert named <= locked


def test_nothing_runs_at_every_start() -> None:
    """Nothing unknown is installed that Python would run before every program (a `.pth` with code)."""
    running = [
        path
        for folder in site.getsitepackages()
        for path in Path(folder).glob("*.pth")
        if any(line.startswith(("import ", "import\t")) for line in path.read_text().splitlines())
    ]

    assert [path.name for path in running if not KNOWN_PTH.fullmatch(path.name)] == []


def test_two_builds_are_the_same(tmp_path: Path) -> None:
    """The wheel is a function of the sources: whoever builds it again gets the same bytes."""
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    wheels = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-c", build, str(folder)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=120,
        )
        (wheel,) = folder.glob("*.whl")
        wheels.append(wheel.read_bytes())

    assert wheels[0] == wheels[1]


def test_no_secret_is_in_the_sources() -> None:
    """No key of a provider and no private key lies among the files that are published."""
    published = ["meter", "migrations", "grafana", "docs", "deploy"]
    pattern = re.compile(
        rb"sk-(?:proj|ant|or)-[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|AKIA[0-9A-Z]{16}"
    )

    files = [path for name in published for path in (ROOT / name).rglob("*") if path.is_file()]

    assert [path for path in files if "secrets" not in path.parts and pattern.search(path.read_bytes())] == []


def audited(*dependencies: Mapping[str, object]) -> str:
    """Write a report of the auditor."""
    return json.dumps({"dependencies": dependencies, "fixes": []})


GOOD = {"name": "a", "version": "1", "vulns": []}
UNKNOWN = {"name": "b", "skip_reason": "not found"}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
AUDITS: list[tuple[str | None, int, str]] = [
    (None, 0, "Not audited"),
    (audited(UNKNOWN), 0, "Not audited"),
    (audited(GOOD), 0, "1 packages audited, 0 vulnerabilities."),
    (audited(GOOD, UNKNOWN), 0, "1 packages were not audited: b"),
    (audited(GOOD, BAD), 1, "c 2: CVE-1, fixed in 3"),
]


@pytest.mark.parametrize(("report", "status", "said"), AUDITS)
def test_what_an_audit_found_is_said(report: str | None, status: int, said: str) -> None:
    """What is vulnerable fails, and what nobody could look at is said and does not."""
    found, text = audit.verdict(report)

    assert found == status
    assert said in "\n".join(text)
