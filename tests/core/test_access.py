"""Who may do what."""

import pytest

from meter.core.access import ACTOR_LENGTH_MAX, EVERYTHING, OWNER, Asker, Least, Role, Scope

ADMIN = Asker(Role.ADMIN, "a", "ci")
VIEWER = Asker(Role.VIEWER, "v", "finance")
TEAM_VIEWER = Asker(Role.VIEWER, "t", "lead", "team-1")
SCRAPER = Asker(Role.METRICS, "m", "prometheus")


@pytest.mark.parametrize(
    ("asker", "allowed"),
    [
        (OWNER, set(Least)),
        (ADMIN, set(Least)),
        (VIEWER, {Least.METRICS, Least.TEAM, Least.VIEWER}),
        (TEAM_VIEWER, {Least.TEAM}),
        (SCRAPER, {Least.METRICS}),
    ],
)
def test_a_role_reaches_so_far(asker: Asker, allowed: set[Least]) -> None:
    """Each role may ask for what the table says, and for nothing else."""
    assert {least for least in Least if asker.may(least)} == allowed


@pytest.mark.parametrize("role", [Role.ADMIN, Role.METRICS])
def test_other_roles_of_a_team_may_nothing(role: Role) -> None:
    """Only viewers are of a team; whatever else came out of the database so may do nothing."""
    assert not any(Asker(role, "x", "x", "team-1").may(least) for least in Least)


def test_a_scope_is_that_of_the_team() -> None:
    """A team's viewer sees its team, everybody else sees everything."""
    assert TEAM_VIEWER.scope == Scope("team-1")
    assert VIEWER.scope == ADMIN.scope == EVERYTHING


def test_an_actor_fits_the_audit_log() -> None:
    """The id comes first, and a long name is cut."""
    actor = Asker(Role.ADMIN, "abc", "x" * 128).actor

    assert actor.startswith("abc xxx")
    assert len(actor) == ACTOR_LENGTH_MAX
