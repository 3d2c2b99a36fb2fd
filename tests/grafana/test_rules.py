"""The rules for Prometheus are right by its own tool, and each alert says what to do about it."""

import re
import subprocess
from pathlib import Path

from tests import services

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "grafana" / "prometheus"
RULES = (FOLDER / "meter.rules.yml").read_text(encoding="utf-8")
TESTS = (FOLDER / "meter.rules.test.yml").read_text(encoding="utf-8")
ALERTS = re.findall(r"alert: (\w+)", RULES)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Prometheus' tool on the rules."""
    program = services.prometheus_program("promtool")
    return subprocess.run(
        [program, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_rules_do_what_they_should() -> None:
    """Every case of the rules' tests ends as it says."""
    done = promtool("test", "rules", "meter.rules.test.yml")

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_clean() -> None:
    """The rules and the configuration beside them are valid."""
    rules = promtool("check", "rules", "meter.rules.yml")
    config = promtool("check", "config", "--syntax-only", "prometheus.yml")

    assert (rules.returncode, rules.stderr) == (0, "")
    assert config.returncode == 0, config.stdout + config.stderr


def test_every_alert_is_tested_both_ways() -> None:
    """For each alert there is a case in which it fires, and one in which it does not."""
    cases = re.findall(r"alertname: (\w+)\n +exp_alerts:( \[\])?", TESTS)

    assert set(ALERTS) == {name for name, _ in cases}
    for alert in ALERTS:
        assert {bool(none) for name, none in cases if name == alert} == {True, False}, alert


def test_every_alert_says_what_to_do() -> None:
    """Each alert names its section of the documentation, which is there and is not empty."""
    guide = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    runbooks = re.findall(r"runbook: docs/monitoring.md#(\w+)", RULES)
    sections = dict(re.findall(r"^### (\w+)\n\n(.+?)(?=\n\n|\Z)", guide, re.MULTILINE | re.DOTALL))

    assert runbooks == [alert.lower() for alert in ALERTS]
    assert list(sections) == ALERTS
