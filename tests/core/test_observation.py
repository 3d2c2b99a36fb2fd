"""What is observed of a response: whether its usage can be charged."""

import pytest

from meter.core.observation import Observation
from meter.core.usage import TokenUsage


@pytest.mark.parametrize(
    ("usage", "emitted", "usable"),
    [
        (None, 0, False),
        (None, 5, False),
        (TokenUsage(prompt_tokens=3, completion_tokens=4), 5, True),
        (TokenUsage(prompt_tokens=0, completion_tokens=0), 0, True),
        (TokenUsage(prompt_tokens=0, completion_tokens=0), 5, False),
    ],
)
def test_usage_is_usable_unless_it_is_zero_for_a_text(
    usage: TokenUsage | None, emitted: int, usable: bool
) -> None:
    """A usage of nothing beside a text that was produced is no usage."""
    assert Observation(usage=usage, emitted_tokens=emitted).usable is usable
