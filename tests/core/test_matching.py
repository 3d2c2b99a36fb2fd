"""Names of a bill and of the ledger find each other, and never a different model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.matching import Names, match

NAMES = st.sampled_from(
    [
        f"{prefix}{base}{date}"
        for prefix in ("", "openai/", "azure/")
        for base in ("gpt-4o", "gpt-4o-mini")
        for date in ("", "-2024-05-13", "-20240513", "-2024-08-06")
    ]
)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("gpt-4.1", "gpt-4.1"),
        ("gpt-4.1", "openai/gpt-4.1"),
        ("openai/gpt-4.1", "gpt-4.1"),
        ("gpt-4.1", "gpt-4.1-2025-04-14"),
        ("gpt-4.1-2025-04-14", "openai/gpt-4.1"),
        ("claude-sonnet-4-20250514", "anthropic/claude-sonnet-4"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4-2025-05-14"),
        ("mistral/mistral-large", "mistralai/mistral-large"),
        ("qwen3-max", "qwen/qwen3-max"),
    ],
)
def test_the_same_model_under_two_names(theirs: str, ours: str) -> None:
    """A prefix, a snapshot's date, or both may be left off one side."""
    assert match([theirs], [ours]) == [Names((theirs,), (ours,))]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
        ("openai/gpt-4o", "azure/gpt-4o"),
        ("GPT-4o", "gpt-4o"),
        ("deepseek-chat", "deepseek-chat-123"),
        ("gpt-4.1", "gpt-4.1-preview"),
    ],
)
def test_different_models_stay_apart(theirs: str, ours: str) -> None:
    """Other dates, other vendors and other endings are other models."""
    assert {(names.theirs, names.ours) for names in match([theirs], [ours])} == {
        ((theirs,), ()),
        ((), (ours,)),
    }


def test_equal_names_come_first() -> None:
    """Where a name of its own is there, the one without a date does not stand for it."""
    names = ["gpt-4o", "gpt-4o-2024-05-13"]

    assert match(names, names) == [Names((name,), (name,)) for name in names]


def test_one_name_of_theirs_for_several_of_ours() -> None:
    """A bill by model is compared with all snapshots of it that have no line of their own."""
    ours = ["gpt-4o-2024-05-13", "gpt-4o-2024-08-06", "openai/gpt-4o"]

    assert match(["gpt-4o"], ours) == [Names(("gpt-4o",), tuple(ours))]
    assert match(["gpt-4o", "gpt-4o-2024-05-13"], ours[:2]) == [
        Names(("gpt-4o",), ("gpt-4o-2024-08-06",)),
        Names(("gpt-4o-2024-05-13",), ("gpt-4o-2024-05-13",)),
    ]


def test_several_names_of_theirs_for_one_of_ours_are_ambiguous() -> None:
    """What the ledger does not tell apart is compared together, and that is known."""
    theirs = ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06")

    found = match(theirs, ["gpt-4o"])

    assert found == [Names(theirs, ("gpt-4o",))]
    assert found[0].ambiguous


@given(st.lists(NAMES), st.lists(NAMES))
def test_every_name_is_in_one_group(theirs: list[str], ours: list[str]) -> None:
    """Nothing is lost and nothing counts twice, and equal names are never parted."""
    groups = match(theirs, ours)

    assert sorted(name for group in groups for name in group.theirs) == sorted(set(theirs))
    assert sorted(name for group in groups for name in group.ours) == sorted(set(ours))
    for name in {*theirs} & {*ours}:
        assert any(name in group.theirs and name in group.ours for group in groups)
