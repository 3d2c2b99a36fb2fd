"""Models without a price: refused where that is the policy, and told in the log, each of them once."""

import logging
from collections.abc import Callable

from meter.core.events import UsageEvent, UsageSource
from meter.core.prices import PriceBook
from meter.core.unpriced import BLOCK, check_priced, policy_for
from meter.proxy.admission import Candidate

# Names are made up by clients; past this many the metric has to do.
NAMES_TOLD_MAX = 1000

log = logging.getLogger(__name__)


class UnpricedGate:
    """A step of the admission: models without a price may be used by the keys that may use such models."""

    def __init__(self, book: Callable[[], PriceBook], default: str) -> None:
        """Take where the newest book is, and the policy of keys that have none of their own."""
        self._book = book
        self._default = default

    def step(self, candidate: Candidate) -> None:
        """Admit what has a price, or need not have one; raises `ModelNotPriced`."""
        policy = policy_for((candidate.grant.unpriced, self._default))
        if policy == BLOCK:
            attempt = candidate.attempt
            priced = self._book().knows(attempt.upstream, attempt.model, attempt.started_at)
            check_priced(policy, attempt.model, priced=priced)


class Unpriced:
    """Says in the log which models went without a price."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, event: UsageEvent) -> None:
        """Warn of an event that should have a cost and has none, if its model has not been named before."""
        model = event.model
        if event.usage_source is UsageSource.NONE or model in self._told or len(self._told) >= NAMES_TOLD_MAX:
            return
        self._told.add(model)
        if event.price_id is None:
            log.warning("no price is known for %r, which is unpriced: meter prices set ...", model)
        else:
            log.warning(
                "price %d of %r has none for a kind of tokens that was used: the request is unpriced",
                event.price_id,
                model,
            )
        if len(self._told) == NAMES_TOLD_MAX:
            log.warning("further models without a price are not named here: see meter_unpriced_total")
