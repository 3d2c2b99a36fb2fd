"""Models without a price pass or are refused, as the nearest policy says."""

import pytest

from meter.core.errors import ModelNotPriced
from meter.core.unpriced import check_priced, policy_for


@pytest.mark.parametrize(
    ("configured", "policy"),
    [
        ((None, "block"), "block"),
        (("allow", "block"), "allow"),
        (("block", "allow"), "block"),
        ((None, None), "allow"),
        ((), "allow"),
    ],
)
def test_the_nearest_policy_counts(configured: tuple[str | None, ...], policy: str) -> None:
    """The key's policy comes before the settings', and without any, models pass."""
    assert policy_for(configured) == policy


@pytest.mark.parametrize(("policy", "priced"), [("allow", False), ("allow", True), ("block", True)])
def test_what_passes(policy: str, priced: bool) -> None:
    """What has a price passes, and what has none where that is allowed."""
    check_priced(policy, "model", priced=priced)


def test_what_is_refused() -> None:
    """A refusal names the model, and the command that gives it a price, safe to paste."""
    with pytest.raises(ModelNotPriced, match="'odd model; x'") as refusal:
        check_priced("block", "odd model; x", priced=False)

    assert "meter prices set 'odd model; x' --prompt" in refusal.value.message
    assert refusal.value.param == "model"
