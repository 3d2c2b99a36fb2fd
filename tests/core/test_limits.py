"""Limits: which models a list allows, what is refused as a limit, and what stands in for what is not set."""

import pytest

from meter.core.limits import (
    LIMIT_MAX,
    PATTERNS_MAX,
    Defaults,
    Limits,
    allows,
    check_limits,
    check_models,
    common_models,
)

LIST = ("openai/gpt-4.1", "anthropic/*")


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ("openai/gpt-4.1", True),
        ("anthropic/claude-sonnet-4", True),
        ("anthropic/a/b", True),
        ("openai/gpt-4.1-mini", False),
        ("openai/gpt-4.1 ", False),
        (" openai/gpt-4.1", False),
        ("OpenAI/gpt-4.1", False),
        ("openai/gpt-4.1\u200b", False),
        ("openai/gpt\u20114.1", False),
        ("\u043epenai/gpt-4.1", False),
        ("anthropic/", False),
        ("anthropic", False),
        ("anthropic/*", True),
        ("Anthropic/claude-sonnet-4", False),
        ("xanthropic/claude-sonnet-4", False),
        ("ft:openai/gpt-4.1:mine", False),
        ("openai/gpt-4.1-2025-04-14", False),
        ("openai/gpt-4.1\x00", False),
        ("gpt-4.1", False),
    ],
)
def test_a_model_is_allowed_by_its_exact_name_or_its_provider(model: str, allowed: bool) -> None:
    """Nothing is normalised: another case, a blank, a look-alike or a suffix makes another model."""
    assert allows(LIST, model) is allowed


def test_without_a_list_every_model_is_allowed() -> None:
    """No list is no limit; an empty one, which cannot be set, allows nothing."""
    assert allows(None, "anything")
    assert not allows((), "anything")


def test_a_list_keeps_its_order_and_names_each_model_once() -> None:
    """A name that is written twice counts once."""
    assert check_models(["b/*", "a", "b/*"]) == ("b/*", "a")


@pytest.mark.parametrize(
    "pattern",
    ["", "*", "/*", "openai/gpt-*", "*/gpt", "open?i/x", "openai/**", " a", "a ", "a\n", "a\x00", "x" * 257],
)
def test_other_wildcards_and_unprintable_names_are_refused(pattern: str) -> None:
    """What would match nothing, or more than it seems to, is refused by name."""
    with pytest.raises(ValueError, match=r"^'models' "):
        check_models(["fine", pattern])


def test_a_list_has_one_model_at_least_and_not_too_many() -> None:
    """A key that may use nothing is to be revoked instead."""
    with pytest.raises(ValueError, match="revoke"):
        check_models([])
    with pytest.raises(ValueError, match=str(PATTERNS_MAX)):
        check_models(f"m{each}" for each in range(PATTERNS_MAX + 1))


@pytest.mark.parametrize("limit", [None, 0, 1, LIMIT_MAX])
def test_a_limit_is_a_whole_number_or_none(limit: int | None) -> None:
    """0 is no limit, and nothing is as the settings say; what else is to change passes."""
    changes = {"rpm": limit, "stream_usage": "observe"}

    assert check_limits(changes) == changes


@pytest.mark.parametrize("limit", [-1, LIMIT_MAX + 1])
def test_a_limit_that_cannot_be_kept_is_refused_by_name(limit: int) -> None:
    """The fault names the limit."""
    with pytest.raises(ValueError, match="'tpm'"):
        check_limits({"rpm": 1, "tpm": limit})


def test_what_is_not_set_is_as_the_default() -> None:
    """0 is set: it stands against a default."""
    own = Limits(models=("a",), rpm=0, concurrency=None)
    default = Limits(models=None, rpm=10, tpm=20, concurrency=3)

    assert own.or_else(default) == Limits(models=("a",), rpm=0, tpm=20, concurrency=3)


def test_keys_and_teams_have_defaults_of_their_own() -> None:
    """What a key has not set is filled in from the settings of keys, and a team's from those of teams."""
    defaults = Defaults(key=Limits(rpm=1, tpm=2), team=Limits(rpm=3))

    assert defaults.fill(Limits(tpm=0), Limits()) == (Limits(rpm=1, tpm=0), Limits(rpm=3))


@pytest.mark.parametrize(
    ("own", "of_team", "common"),
    [
        (None, None, None),
        (("a",), None, ("a",)),
        (None, ("p/*",), ("p/*",)),
        (("p/a", "q/b"), ("p/*",), ("p/a",)),
        (("p/*",), ("p/a", "p/b/c", "q"), ("p/a", "p/b/c")),
        (("p/*", "q/*"), ("q/*", "r"), ("q/*",)),
        (("a",), ("b",), ()),
    ],
)
def test_what_two_lists_allow_is_what_both_allow(
    own: tuple[str, ...] | None, of_team: tuple[str, ...] | None, common: tuple[str, ...] | None
) -> None:
    """A name within the other's provider stays, and a provider that the other has too."""
    assert common_models(own, of_team) == common
