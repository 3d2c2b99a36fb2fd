"""Each finding of an examination is well, worth a look, or a failure, and says what to do."""

import pytest

from meter.core import doctor
from meter.core.doctor import Check, State, as_json, worst

GB = 10**9


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (doctor.clock(0.0), "ok"),
        (doctor.clock(-1.9), "ok"),
        (doctor.clock(2.0), "warn"),
        (doctor.clock(-30.0), "fail"),
        (doctor.disk(GB, 0, GB), "ok"),
        (doctor.disk(GB - 1, 0, GB), "warn"),
        # What the journal takes already it does not need again.
        (doctor.disk(GB // 2, GB // 2, GB), "ok"),
        (doctor.disk(GB // 10 - 1, 0, GB), "fail"),
        (doctor.journal(0, GB, 0, 0), "ok"),
        (doctor.journal(GB // 2, GB, 0, 0), "warn"),
        (doctor.journal(GB // 10 * 9, GB, 0, 0), "fail"),
        (doctor.journal(0, GB, 1, 0), "warn"),
        (doctor.journal(0, GB, 0, 1), "warn"),
        (doctor.sqlite((3, 34, 1)), "fail"),
        (doctor.sqlite((3, 40, 1)), "ok"),
        (doctor.postgres("13.9", read_only=False), "warn"),
        (doctor.postgres("17beta1", read_only=False), "ok"),
        (doctor.postgres("16.2", read_only=True), "fail"),
        (doctor.migrations("0007", "0007", known=True), "ok"),
        (doctor.migrations("0006", "0007", known=True), "warn"),
        (doctor.migrations(None, "0007", known=True), "warn"),
        (doctor.migrations("0099", "0007", known=False), "fail"),
        (doctor.models_answer("upstream a", 200), "ok"),
        (doctor.models_answer("upstream a", 401), "fail"),
        (doctor.models_answer("upstream a", 403), "fail"),
        (doctor.models_answer("upstream a", 404), "warn"),
        (doctor.models_answer("upstream a", 302), "warn"),
        (doctor.models_answer("upstream a", 503), "warn"),
    ],
)
def test_findings(found: Check, state: str) -> None:
    """What is well needs no advice, and everything else has some."""
    assert found.state == state
    assert bool(found.advice) == (found.state is not State.OK)


def test_the_worst_decides() -> None:
    """One failure fails, whatever stands beside it; nothing found is well."""
    checks = [Check("a", State.WARN, "x", "y"), Check("b", State.FAIL, "x", "y"), Check("c", State.OK, "x")]

    assert worst(checks) is State.FAIL
    assert worst([checks[0], checks[2]]) is State.WARN
    assert worst([]) is State.OK
    assert as_json(checks[2:]) == {
        "state": "ok",
        "checks": [{"name": "c", "state": "ok", "seen": "x", "advice": ""}],
    }
