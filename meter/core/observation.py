"""What was learned of one upstream response: its usage, and what else is kept of it."""

from decimal import Decimal

import msgspec

from meter.core.usage import ReportedUsage, TokenUsage


class UpstreamError(msgspec.Struct, frozen=True, gc=False):
    """An error that the upstream sent, without its message, which may quote a prompt."""

    type: str | None = None
    code: str | int | None = None


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What was learned of a response. Strings are bounded and can be stored as UTF-8."""

    usage: TokenUsage | None = None
    """Normalised; `None` if none was sent, if it is invalid, or if reading stopped early."""
    reported: ReportedUsage | None = None
    """As sent; `None` if none was sent or if reading stopped early."""
    usage_raw: str | None = None
    """The merged usage object as compact JSON; a list of them where they stood on several choices."""
    model: str | None = None
    upstream_id: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    finish_reasons: tuple[str, ...] = ()
    """By the index of the choice, without the choices that did not finish."""
    upstream_cost: Decimal | None = None
    """USD."""
    upstream_cost_source: str | None = None
    usage_chunks: int = 0
    choice_usage: bool = False
    """The usage was found on choices only."""
    done: bool = False
    comments: int = 0
    unparseable_events: int = 0
    error: UpstreamError | None = None
    emitted_tokens: int = 0
    """The larger of the number of events with text and the estimate of all text."""
    emitted_since_usage: int = 0
    """How many of them came in events after the last usage: more than 0 if that was a running count."""
    anomalies: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Say whether the usage can be charged: it is there, and not zero for a text that was produced."""
        usage = self.usage
        if usage is None:
            return False
        return usage.prompt_tokens > 0 or usage.completion_tokens > 0 or self.emitted_tokens == 0
