"""The table of threats is whole: each has its tests, which exist, and the documentation says the same."""

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.security.threats import ROOT, THREATS, Result, Threat, read

DOCUMENTED = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
COUNT = 45


@functools.cache
def functions(path: Path) -> frozenset[str]:
    """Return the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef))


def row(threat: Threat) -> str:
    """Return the row of a threat in the documentation."""
    found = re.findall(rf"^\| {threat.name} \|.*$", DOCUMENTED, re.MULTILINE)
    assert len(found) == 1, f"docs/security.md has {len(found)} rows of {threat.name}"
    return str(found[0])


def test_every_threat_has_a_row() -> None:
    """Nothing is left out, and nothing stands twice."""
    assert [threat.number for threat in THREATS] == list(range(1, COUNT + 1))
    assert len(re.findall(r"^\| T\d+ \|", DOCUMENTED, re.MULTILINE)) == COUNT


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_a_threat_is_tested_or_explained(threat: Threat) -> None:
    """Each test of a row exists and its file is documented; a row without tests has its reason there."""
    documented = row(threat)

    for test in threat.tests:
        file, _, function = test.partition("::")
        assert function in functions(ROOT / "tests" / file), test
        assert f"`tests/{file}`" in documented, file
    if not threat.tests:
        assert "Not meter's" in documented


REPORT = """<testsuites><testsuite>
<testcase classname="tests.a.test_b" name="test_c[1]"/>
<testcase classname="tests.a.test_b" name="test_c[2]"><failure message="no"/></testcase>
<testcase classname="tests.test_d" name="test_e"><skipped message="there is no PostgreSQL"/></testcase>
<testcase classname="tests.test_d" name="test_f"><skipped message=""/></testcase>
<testcase classname="tests.test_d" name="test_g"/>
</testsuite></testsuites>"""


def test_results_are_read_from_pytests_report() -> None:
    """A function is as good as its worst row, a skip needs a reason, and what did not run shows nothing."""
    found = read(REPORT)

    assert found["a/test_b.py::test_c"] == Result(passed=1, failed=1)
    assert {name: result.bad for name, result in found.items()} == {
        "a/test_b.py::test_c": True,
        "test_d.py::test_e": False,
        "test_d.py::test_f": True,
        "test_d.py::test_g": False,
    }
    assert Result().bad
    assert str(Result()) == "MISSING"
