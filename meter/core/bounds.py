"""The most that a request can use, for budgets that must not be passed.

Every token of text takes at least a byte of the body, so that the body's length bounds the prompt; its
marks, names and braces are more bytes than the tokens that a chat template puts around messages. Pictures in
the body count by a bound of their own, since a small file can hold a large one. The answer is bounded by what
the request says, or by what the model can say at most.

What has no bound is refused, naming what to do: pictures and files that the provider fetches, tools that run
there, and models that it may choose instead.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from meter.core.budgets import Amounts
from meter.core.errors import InvalidRequest, RequestNotBounded
from meter.core.prices import Price, Rates

# OpenAI's dearest: gpt-4o-mini takes 2,833 tokens for a picture, and 5,667 for each of at most eight tiles.
IMAGE_TOKENS_MAX = 50_000
CHOICES_MAX = 1024
TOKENS_MAX = 10**9
# Every request asks for the ceiling of a few prices, which hardly ever change.
CEILINGS_REMEMBERED_MAX = 4096

# Members by which a provider adds to a request what is not in it.
_ADDING = frozenset(
    {
        "conversation",
        "models",
        "plugins",
        "previous_response_id",
        "search_parameters",
        "web_search_options",
    }
)
# Members by which a request asks for several answers, and by which they become longer.
_REPEATING = frozenset({"best_of", "n", "prompt"})
_LENGTHENING = frozenset({"prediction", "reasoning", "thinking"})
_PARTS_OF_TEXT = frozenset({"text", "refusal", "thinking", "input_audio"})
_TOOLS_OF_CLIENT = frozenset({"function", "custom"})
_PROMPT_KINDS = ("prompt", "cached", "cache_write", "cache_write_1h", "input_audio")
_COMPLETION_KINDS = ("completion", "output_audio")


class Bound(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The most that a request can use."""

    prompt_tokens: int
    completion_tokens: int
    cost: int | None = None
    """Picodollars; `None` where the model has no price."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


class Dearest(NamedTuple):
    """The dearest rates of a tier for prompts of more than so many tokens; `None` is no price."""

    above_tokens: int
    prompt: int | None
    completion: int | None
    request: int

    def cost(self, prompt: int, completion: int) -> int | None:
        """Cost tokens of whatever kind; `None` where they have no price."""
        if (prompt and self.prompt is None) or (completion and self.completion is None):
            return None
        return prompt * (self.prompt or 0) + completion * (self.completion or 0) + self.request


class Ceiling(msgspec.Struct, frozen=True):
    """What a model can cost and say at most, by its price in every tier."""

    prices: tuple[Price, ...]
    output_tokens: int | None
    """Of one choice of an answer; `None` where no price says it."""
    rates: tuple[Dearest, ...]

    def cost(self, prompt: int, completion: int) -> int | None:
        """Cost the tokens in the dearest tier, at the dearest rate that each can have.

        A prompt may be shorter than its bound, so that the rates of shorter ones count too.
        """
        most: int | None = None
        for rates in self.rates:
            if prompt > rates.above_tokens:
                cost = rates.cost(prompt, completion)
                if cost is not None and (most is None or cost > most):
                    most = cost
        return most


def ceiling(prices: Iterable[Price]) -> Ceiling:
    """Find the dearest of a model's prices."""
    listed = tuple(prices)
    most = [price.max_output_tokens for price in listed if price.max_output_tokens is not None]
    rates = dict.fromkeys(dearest for price in listed for dearest in _dearest(price))
    return Ceiling(listed, max(most, default=None), tuple(rates))


class Ceilings:
    """Remembers the ceilings of prices by the very tuples, because comparing prices would take longer."""

    def __init__(self) -> None:
        self._known: dict[int, Ceiling] = {}

    def of(self, prices: tuple[Price, ...]) -> Ceiling:
        """Return the ceiling of a model's prices."""
        # A ceiling holds its prices, so that no others get their id while it is remembered.
        known = self._known.get(id(prices))
        if known is None:
            if len(self._known) >= CEILINGS_REMEMBERED_MAX:
                self._known.clear()
            known = self._known[id(prices)] = ceiling(prices)
        return known


def bound(document: Mapping[str, Any], *, body_bytes: int, embeds: bool, ceiling: Ceiling) -> Bound:
    """Bound a request by its decoded body, the body's length, and what its model can cost and say.

    `embeds` says that the answer has no tokens. Raises `RequestNotBounded`, or `InvalidRequest` for limits
    that are no numbers.
    """
    prompt = body_bytes + IMAGE_TOKENS_MAX * _images(document)
    completion = 0 if embeds else _completion(document, body_bytes, ceiling.output_tokens)
    return Bound(prompt_tokens=prompt, completion_tokens=completion, cost=ceiling.cost(prompt, completion))


def likely(
    document: Mapping[str, Any], *, prompt_tokens: int, completion_tokens: int, price: Price | None
) -> Amounts:
    """Say what a request will likely use, by the size that its answers usually have."""
    asked = asked_output_tokens(document)
    each = completion_tokens if asked is None else min(asked, completion_tokens)
    completion = each * choices(document)
    cost = 0
    if price is not None:
        rates = price.rates_for(prompt_tokens)
        cost = prompt_tokens * (rates.prompt or 0) + completion * (rates.completion or 0) + rates.request
    return Amounts(cost, prompt_tokens + completion, 1)


def asked_output_tokens(document: Mapping[str, Any]) -> int | None:
    """Return how many tokens a choice of the answer may have by what the request says."""
    first, second = _number(document, "max_completion_tokens"), _number(document, "max_tokens")
    if first is None or second is None:
        return second if first is None else first
    return max(first, second)


def choices(document: Mapping[str, Any]) -> int:
    """Return how many answers are asked for: `n` or `best_of`, for each of several prompts."""
    if _REPEATING.isdisjoint(document):
        return 1
    count = max(1, _number(document, "n") or 0, _number(document, "best_of") or 0)
    prompts = document.get("prompt")
    if isinstance(prompts, list):
        # A list of numbers is one prompt, by its tokens.
        count *= max(1, sum(isinstance(prompt, str | list) for prompt in prompts))
    if count > CHOICES_MAX:
        raise InvalidRequest(f"'n' asks for more than {CHOICES_MAX} answers.", param="n")
    return count


def _completion(document: Mapping[str, Any], body_bytes: int, output_tokens: int | None) -> int:
    asked = asked_output_tokens(document)
    each = output_tokens if asked is None else asked
    if each is None:
        raise RequestNotBounded(
            "A strict budget needs to know how long the answer can be: set 'max_completion_tokens' (or "
            "'max_tokens'), or the model's largest output with 'meter prices set ... --max-output N'.",
            param="max_completion_tokens",
        )
    if not _LENGTHENING.isdisjoint(document):
        each += _thoughts(document)
        if document.get("prediction") is not None:
            # Rejected predictions are billed as output beside what was generated.
            each += body_bytes
    return each * choices(document)


def _thoughts(document: Mapping[str, Any]) -> int:
    reasoning, thinking = document.get("reasoning"), document.get("thinking")
    tokens = 0
    if isinstance(reasoning, dict):
        tokens += _number(reasoning, "max_tokens") or 0
    if isinstance(thinking, dict):
        tokens += _number(thinking, "budget_tokens") or 0
    return tokens


def _images(document: Mapping[str, Any]) -> int:
    """Count the pictures in the body; raises `RequestNotBounded` for everything that is not in it."""
    for name in () if _ADDING.isdisjoint(document) else _ADDING.intersection(document):
        if document[name]:
            raise _not_bounded(name, "lets the provider add to the request or choose another model")
    model = document.get("model")
    if isinstance(model, str) and model.endswith(":online"):
        raise _not_bounded("model", "lets the provider search the web")
    if "prompt" in document and isinstance(document["prompt"], dict):
        raise _not_bounded("prompt", "names a prompt that the provider keeps")
    for tool in _list(document["tools"]) if "tools" in document else ():
        if not isinstance(tool, dict) or tool.get("type", "function") not in _TOOLS_OF_CLIENT:
            raise _not_bounded("tools", "has a tool that runs at the provider")
    return _images_of(_list(document["messages"])) if "messages" in document else 0


def _images_of(messages: list[Any]) -> int:
    count = 0
    for message in messages:
        if not isinstance(message, dict):
            continue
        if message.get("audio"):
            raise _not_bounded("messages", "names audio that the provider keeps")
        content = message.get("content")
        if isinstance(content, list):
            count += sum([_image(part) for part in content])
    return count


def _image(part: object) -> int:
    if not isinstance(part, dict):
        return 0
    kind = part.get("type", "text")
    if kind in _PARTS_OF_TEXT:
        return 0
    picture = part.get("image_url")
    url = picture.get("url") if isinstance(picture, dict) else picture
    if kind == "image_url" and isinstance(url, str) and url.startswith("data:"):
        return 1
    raise _not_bounded("messages", "has content whose size nobody can tell from the request")


def _not_bounded(param: str, why: str) -> RequestNotBounded:
    return RequestNotBounded(
        f"'{param}' {why}, so that what it costs has no bound, and a strict budget refuses it. Leave it out, "
        "or use a budget with the enforcement 'standard'.",
        param=param,
    )


def _dearest(price: Price) -> Iterator[Dearest]:
    yield _dearest_of(price.rates, -1)
    for longer in price.long_context:
        yield _dearest_of(longer.rates, longer.above_tokens)


def _dearest_of(rates: Rates, above_tokens: int) -> Dearest:
    ins = [rate for kind in _PROMPT_KINDS if (rate := rates.of(kind)) is not None]
    outs = [rate for kind in _COMPLETION_KINDS if (rate := rates.of(kind)) is not None]
    return Dearest(above_tokens, max(ins, default=None), max(outs, default=None), rates.request)


def _number(document: Mapping[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        raise InvalidRequest(f"'{name}' must be a whole number, not negative.", param=name)
    return value


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
