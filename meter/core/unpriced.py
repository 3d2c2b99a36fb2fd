"""What becomes of requests for models without a price.

Unknown is not free: what such a request costs is not known before it has been paid for. `allow` lets it pass
and leaves its event unpriced; `block` refuses it before it goes upstream.
"""

from collections.abc import Iterable

from meter.core.errors import ModelNotPriced

ALLOW = "allow"
BLOCK = "block"
POLICIES = (ALLOW, BLOCK)


def policy_for(configured: Iterable[str | None]) -> str:
    """Return the policy: of the first place, such as the key and then the settings, that has one."""
    for policy in configured:
        if policy is not None:
            return policy
    return ALLOW


def check_priced(policy: str, model: str, *, priced: bool) -> None:
    """Refuse a model without a price, where that is the policy."""
    if policy == BLOCK and not priced:
        raise ModelNotPriced(model)
