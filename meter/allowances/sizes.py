"""How long answers usually are, by key and model: what a budget that may err reserves for them."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from meter.core.events import UsageEvent, UsageSource

# Until something is known of a key and a model.
COMPLETION_TOKENS_FIRST = 500
PAIRS_REMEMBERED_MAX = 10_000
# How much the last answer counts against all before it.
WEIGHT = 0.1


class Sizes:
    """Averages that follow what comes; bounded, since clients make up names."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[tuple[str, str], float] = OrderedDict()

    def start_from(self, known: Mapping[tuple[str, str], float]) -> None:
        """Take in averages by the ids of keys and requested models, from the ledger."""
        for pair, tokens in known.items():
            self._tokens.setdefault(pair, tokens)
        self._bound()

    def learn(self, events: Iterable[UsageEvent]) -> None:
        """Take in what was used."""
        for event in events:
            if event.usage_source is not UsageSource.REPORTED:
                continue
            pair = (event.key_id, event.model_requested)
            before = self._tokens.get(pair, float(event.completion_tokens))
            self._tokens[pair] = before + WEIGHT * (event.completion_tokens - before)
            self._tokens.move_to_end(pair)
        if len(self._tokens) > PAIRS_REMEMBERED_MAX:
            self._bound()

    def likely(self, key_id: str, model: str) -> int:
        """Return how many tokens an answer will likely have."""
        return max(1, round(self._tokens.get((key_id, model), COMPLETION_TOKENS_FIRST)))

    def _bound(self) -> None:
        while len(self._tokens) > PAIRS_REMEMBERED_MAX:
            self._tokens.popitem(last=False)
