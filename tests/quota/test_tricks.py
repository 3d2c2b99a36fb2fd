"""What clients try in order to use more than they are charged for: each is charged in full, or is refused.

One test a trick, in the order of the table in `docs/quota.md`, against one real server whose keys have
strict budgets of cost. The corpora of single tricks are tested where the code is that withstands them.
"""

import gzip
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from meter.core.budgets import Measure
from meter.core.events import Outcome, UsageSource
from meter.store.tables import budget_windows
from tests import providers, server, wire
from tests.fake_upstream import DONE, Cut, FakeUpstream, Gate, Received, Step, event, response, stream
from tests.faults.seeds import fresh_databases
from tests.quota.world import KEYS, World, budget
from tests.server import Meter, until

IN, OUT = 10**6, 2 * 10**6
"""What a token of `plain` costs, in picodollars: 1 and 2 USD for a million of them."""
PRICES: dict[tuple[str, str], dict[str, object]] = {
    ("plain", ""): {"prompt_usd_per_mtok": "1", "completion_usd_per_mtok": "2"},
    ("dear", ""): {"prompt_usd_per_mtok": "10", "completion_usd_per_mtok": "20"},
    ("talker", ""): {
        "prompt_usd_per_mtok": "1",
        "completion_usd_per_mtok": "2",
        "max_output_tokens": 128_000,
    },
    ("talker", "priority"): {"prompt_usd_per_mtok": "10", "completion_usd_per_mtok": "20"},
    ("singer", ""): {
        "prompt_usd_per_mtok": "1",
        "completion_usd_per_mtok": "2",
        "input_audio_usd_per_mtok": "30",
        "output_audio_usd_per_mtok": "60",
    },
    ("atom", ""): {"prompt_usd_per_mtok": "0.000001", "completion_usd_per_mtok": "0.000001"},
}
LIMITS: dict[str, dict[str, object]] = {
    "burst": {"measure": "requests", "limit": "3"},
    "spoken": {"limit": "5"},
}
TRICKS = ("tricks", "burst", "aborts", "atoms", "fields", "spoken")
MAX_TOKENS = 50
USAGE = {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}
REAL = 9 * IN + 40 * OUT
TWICE = (
    b'{"model":"plain","messages":[],"max_tokens":1,"model":"dear"}',
    b'{"model":"plain","messages":[],"max_tokens":1,"mod\\u0065l":"dear"}',
    b'{"model":"plain","messages":[],"max_tokens":1,"MODEL":"dear"}',
    b'{"model":"plain","messages":[],"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}',
)
SECONDS_MAX = 20.0
LOOK_SECONDS = 0.2


class Shop:
    """A server, and the keys that have strict budgets there."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.keys = {name: meter.new_key(name=name) for name in TRICKS}
        with meter.control as control:
            for (model, tier), price in PRICES.items():
                named = {"model": model, "service_tier": tier}
                control.post("/api/v1/prices", json=named | price).raise_for_status()
            control.post("/api/v1/teams", json={"name": "churn"}).raise_for_status()
            budgets: list[dict[str, object]] = [{"team": "churn", "measure": "requests", "limit": "2"}]
            budgets += [{"key": name, "limit": "1"} | LIMITS.get(name, {}) for name in TRICKS]
            made: dict[str, object] = {"period": "total", "enforcement": "strict"}
            for each in budgets:
                control.put("/api/v1/budgets", json=made | each).raise_for_status()

    def is_known(self) -> bool:
        """Say whether the last price is known, and a budget: what is too large is refused for that alone.

        It takes some seconds, so that it is not asked all the time.
        """
        time.sleep(LOOK_SECONDS)
        return self.post("aborts", model="atom", max_tokens=10**9, n=1000).status == 429

    def post(self, name: str, **members: object) -> wire.Answer:
        """Ask with a key."""
        return self.send(name, chat(**members))

    def send(self, name: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> wire.Answer:
        """Send a body as it is."""
        return wire.post(self.meter.url, self.keys[name], body, headers=headers)

    def charged(self, name: str, model: str, count: int = 1) -> list[int]:
        """Wait for so many events of a key's for a model, and return what they were charged."""
        key = self.keys[name]

        def found() -> list[int]:
            events = [each for each in self.meter.events(key, 0) if each.model_requested == model]
            return [each.cost or 0 for each in events] if len(events) >= count else []

        return until(found, f"{count} events of {model}")


def chat(**members: object) -> bytes:
    """Write a request whose answer is bounded."""
    return wire.chat(**{"model": "plain", "max_tokens": MAX_TOKENS} | members)


def document(usage: object = USAGE, *, text: str = "Hello", **members: Any) -> bytes:
    """Write an answer."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return json.dumps({"id": "1", "choices": choices, "usage": usage} | members).encode()


OK = [response(document())]


@pytest.fixture(scope="module")
def running(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Run a server that knows all prices and budgets, and reads on for nobody who has left."""
    folder = tmp_path_factory.mktemp("tricks") / "data"
    with server.running(folder, upstream_url=upstream_server.url, hangup_grace_seconds=0) as meter:
        shop = Shop(meter)
        until(shop.is_known, "prices and budgets to be known")
        yield shop


@pytest.fixture
def shop(running: Shop, upstream: FakeUpstream) -> Shop:
    """Give the server, with an upstream that is forgetful of earlier tests."""
    upstream.answer(OK)
    return running


def streamed(request: Received) -> Sequence[Step]:
    """Answer as OpenAI does: with usage only where it is asked for."""
    options = request.json().get("stream_options") or {}
    return stream(*providers.openai(options.get("include_usage", False)))


def real_of_stream() -> int:
    """Return what that costs."""
    usage = providers.USAGE
    return int(str(usage["prompt_tokens"])) * IN + int(str(usage["completion_tokens"])) * OUT


def test_b01_a_stream_without_usage(shop: Shop, upstream: FakeUpstream) -> None:
    """Usage is asked for at the upstream, charged, and not shown to a client that did not ask."""
    upstream.answer(streamed)

    answer = shop.post("tricks", model="plain-2026-01-01", stream=True)

    assert answer.body == b"".join(providers.openai(asked=False))
    assert shop.charged("tricks", "plain-2026-01-01") == [real_of_stream()]


def test_b02_usage_declined_or_malformed(shop: Shop, upstream: FakeUpstream) -> None:
    """Who declines usage is charged by it all the same; what is no object is refused."""
    upstream.answer(streamed)

    shop.post("tricks", model="plain-2026-01-02", stream=True, stream_options={"include_usage": False})
    assert shop.charged("tricks", "plain-2026-01-02") == [real_of_stream()]

    count = len(upstream.received)
    malformed: list[object] = [[], "no", 0, True]
    statuses = {shop.post("tricks", stream=True, stream_options=each).status for each in malformed}
    assert statuses == {400}
    assert len(upstream.received) == count


def test_b03_hanging_up_within_the_answer(shop: Shop, upstream: FakeUpstream) -> None:
    """Who leaves before the usage comes is charged for all that the answer could have been."""
    gate = Gate()
    upstream.answer(stream(event({"choices": [{"delta": {"content": "a"}}]}), gate, DONE))
    body = chat(model="plain-2026-01-03", stream=True)

    with wire.connected(shop.meter.url) as connection:
        connection.send(wire.request("POST", "/v1/chat/completions", key=shop.keys["tricks"], body=body))
        connection.read_until(b"data: ")

    (charged,) = shop.charged("tricks", "plain-2026-01-03")
    gate.open()
    assert charged == len(body) * IN + MAX_TOKENS * OUT >= REAL


def test_b04_hanging_up_before_the_first_byte(shop: Shop, upstream: FakeUpstream) -> None:
    """Who leaves again and again without an answer pays for each request that reached the upstream."""
    gate = Gate()
    upstream.answer([gate, response(document())])
    body = chat(model="plain-2026-01-04")
    times = 20

    for number in range(times):
        with wire.connected(shop.meter.url) as connection:
            connection.send(wire.request("POST", "/v1/chat/completions", key=shop.keys["aborts"], body=body))
            until(lambda sent=number: len(upstream.received) > sent, "the request")  # type: ignore[misc]

    charged = shop.charged("aborts", "plain-2026-01-04", times)
    gate.open()
    assert charged == [len(body) * IN + MAX_TOKENS * OUT] * times


def test_b05_a_burst(shop: Shop, upstream: FakeUpstream) -> None:
    """Of forty at once on room for three, exactly three get to the upstream."""
    gate = Gate()
    upstream.answer([gate, response(document())])

    with ThreadPoolExecutor(40) as pool:
        asking = [pool.submit(shop.post, "burst") for _ in range(40)]
        until(lambda: sum(each.done() for each in asking) >= 37, "refusals")
        gate.open()
        answers = [each.result(SECONDS_MAX) for each in asking]

    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 37
    assert len(upstream.received) == 3


@pytest.mark.parametrize(
    ("members", "usage"),
    [
        ({"n": 8}, {"prompt_tokens": 9, "completion_tokens": 8 * MAX_TOKENS}),
        ({"best_of": 4}, {"prompt_tokens": 9, "completion_tokens": 4 * MAX_TOKENS}),
        (
            {"prediction": {"type": "content", "content": "a b c " * 30}},
            {"prompt_tokens": 9, "completion_tokens": MAX_TOKENS + 90},
        ),
        (
            {"reasoning": {"max_tokens": 300}},
            {"prompt_tokens": 9, "completion_tokens": MAX_TOKENS + 300},
        ),
        ({"reasoning_effort": "high"}, {"prompt_tokens": 9, "completion_tokens": MAX_TOKENS}),
        ({"logprobs": True, "top_logprobs": 20}, {"prompt_tokens": 9, "completion_tokens": MAX_TOKENS}),
        (
            {"model": "singer", "modalities": ["audio"]},
            {
                "prompt_tokens": 9,
                "completion_tokens": MAX_TOKENS,
                "prompt_tokens_details": {"audio_tokens": 5},
                "completion_tokens_details": {"audio_tokens": MAX_TOKENS},
            },
        ),
        (
            {"model": "talker", "service_tier": "priority"},
            {"prompt_tokens": 9, "completion_tokens": MAX_TOKENS},
        ),
    ],
    ids=lambda members: next(iter(members), ""),
)
def test_b06_members_that_cost_more(
    shop: Shop, upstream: FakeUpstream, members: dict[str, object], usage: dict[str, object]
) -> None:
    """Whatever makes an answer dearer was reserved before, so that its worst case passes no reservation."""
    tier: dict[str, Any] = {"service_tier": members["service_tier"]} if "service_tier" in members else {}
    upstream.answer([response(document(usage, **tier))])
    before = len(shop.meter.events(shop.keys["fields"], 0))

    assert shop.post("fields", **members).status == 200

    charged = shop.meter.events(shop.keys["fields"], before + 1)[-1]
    (part,) = charged.reserved
    assert charged.usage_source is UsageSource.REPORTED
    assert charged.completion_tokens == usage["completion_tokens"]
    assert MAX_TOKENS * OUT < (charged.cost or 0) <= part.amount
    assert "overshoot" not in charged.anomalies


@pytest.mark.parametrize(
    "members",
    [{"web_search_options": {"search_context_size": "high"}}, {"tools": [{"type": "web_search"}]}],
    ids=["web_search_options", "tools"],
)
def test_b06_members_without_a_bound(shop: Shop, upstream: FakeUpstream, members: dict[str, object]) -> None:
    """What a provider may add without an end is refused."""
    answer = shop.post("fields", **members)

    assert (answer.status, answer.error["code"]) == (403, "request_not_bounded")
    assert not upstream.received


def test_b07_no_max_tokens(shop: Shop, upstream: FakeUpstream) -> None:
    """The model's longest answer is reserved; where nobody knows it, the request is refused."""
    assert shop.post("spoken", model="talker", max_tokens=None).status == 200
    (charged,) = shop.meter.events(shop.keys["spoken"])
    answer = shop.post("spoken", model="plain", max_tokens=None)

    assert charged.reserved[0].amount >= 128_000 * OUT
    assert (answer.status, answer.error["code"]) == (403, "request_not_bounded")
    assert len(upstream.received) == 1


@pytest.mark.parametrize("body", TWICE, ids=["plain", "escaped", "by case", "nested"])
def test_b08_members_twice(shop: Shop, upstream: FakeUpstream, body: bytes) -> None:
    """A member that one parser reads and another does not is refused."""
    assert shop.send("tricks", body).status == 400
    assert not upstream.received


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + chat(),
        chat().decode().encode("utf-16"),
        chat().replace(b"plain", b"pl\\ud800ain"),
        chat().replace(b"50", b"NaN"),
        chat() + b'{"model":"dear"}',
        chat().replace(b"{", b"{/* dear */", 1),
        chat().replace(b'"model"', b'"Model"'),
    ],
    ids=["mark", "utf-16", "half a pair", "nan", "trailing", "comment", "case"],
)
def test_b09_encodings(shop: Shop, upstream: FakeUpstream, body: bytes) -> None:
    """What is not one document of strict JSON in UTF-8 is refused."""
    assert shop.send("tricks", body).status == 400
    assert not upstream.received


def test_b09_an_escaped_name_is_the_name(shop: Shop, upstream: FakeUpstream) -> None:
    """A member by escapes is the member, and the same bytes are forwarded."""
    body = chat(model="plain-2026-01-09").replace(b'"model"', b'"mod\\u0065l"')

    assert shop.send("tricks", body).status == 200

    assert upstream.received[0].body == body
    assert shop.charged("tricks", "plain-2026-01-09") == [REAL]


@pytest.mark.parametrize(
    "model", ["Plain", "plain ", "pl\u0430in", "plain\0", "openai/plain", "ft:plain:me", "plain-1234"]
)
def test_b10_names_that_look_priced(shop: Shop, upstream: FakeUpstream, model: str) -> None:
    """A name that is not exactly one with a price is refused."""
    answer = shop.post("tricks", model=model)

    assert answer.status in {400, 403}
    assert answer.status == 400 or answer.error["code"] == "model_not_priced"
    assert not upstream.received


def test_b10_a_dearer_model_answers(shop: Shop, upstream: FakeUpstream) -> None:
    """The model that answered is the one that is charged, and what passes the reservation is flagged."""
    upstream.answer([response(document(model="dear"))])

    shop.post("tricks", model="plain-2026-01-10")

    assert shop.charged("tricks", "plain-2026-01-10") == [10 * REAL]


def test_b11_somebody_elses_name(shop: Shop) -> None:
    """Whatever a request says of users and projects, its key is charged."""
    others = {"user": shop.keys["burst"], "metadata": {"team": "churn", "key": "burst"}}

    shop.post("tricks", model="plain-2026-01-11", **others)

    assert shop.charged("tricks", "plain-2026-01-11") == [REAL]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/responses",
        "/v1/batches",
        "/v1/files",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/realtime",
        "/v1/fine_tuning/jobs",
        "/v1/assistants",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/V1/chat/completions",
    ],
)
def test_b12_other_routes(shop: Shop, upstream: FakeUpstream, path: str) -> None:
    """What is not metered is not there."""
    assert wire.post(shop.meter.url, shop.keys["tricks"], chat(), path=path).status == 404
    assert not upstream.received


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_b13_a_body_that_hides(shop: Shop, upstream: FakeUpstream, encoding: str) -> None:
    """A compressed body is refused, because nobody has read it."""
    answer = shop.send("tricks", gzip.compress(chat()), [("Content-Encoding", encoding)])

    assert answer.status == 415
    assert not upstream.received


def test_b13_a_body_in_single_bytes(shop: Shop, upstream: FakeUpstream) -> None:
    """In chunks of one byte the same is refused as in one piece."""
    chunked = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")]
    head = wire.request("POST", "/v1/chat/completions", key=shop.keys["tricks"], headers=chunked)

    for body in TWICE:
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        assert wire.exchange(shop.meter.url, head + pieces + b"0\r\n\r\n").status == 400

    assert not upstream.received


def test_b14_errors_that_carry_usage(shop: Shop, upstream: FakeUpstream) -> None:
    """An upstream that fails behind the work is paid; one that breaks off may have worked to the end."""
    failed = response(document(error={"message": "late"}), status="500 Internal Server Error")
    upstream.answer([failed], stream(event({"choices": [{"delta": {"content": "a"}}]}), Cut(reset=True)))
    body = chat(model="plain-2026-01-14")

    assert shop.send("tricks", body).status == 500
    assert not shop.send("tricks", body).whole

    charged = sorted(shop.charged("tricks", "plain-2026-01-14", 2))
    assert charged == [REAL, len(body) * IN + MAX_TOKENS * OUT]
    assert len(upstream.received) == 2


def test_b15_usage_in_the_text(shop: Shop, upstream: FakeUpstream) -> None:
    """A usage that the model was asked to say is text."""
    fake = '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
    text = f'data: {{"choices":[],{fake}}}\n\n'
    said = event({"choices": [{"index": 0, "delta": {"content": text}}]})
    real = event({"choices": [], "usage": USAGE})
    upstream.answer([response(document(text=text))], stream(said, real, said, DONE))

    shop.post("tricks", model="plain-2026-01-15")
    shop.post("tricks", model="plain-2026-01-15", stream=True)

    assert shop.charged("tricks", "plain-2026-01-15", 2) == [REAL, REAL]


def test_b16_the_end_of_a_window() -> None:
    """Requests around the ends of hours are charged where they began, whenever they end: no hour has more."""
    hourly = budget("hourly", measure=Measure.REQUESTS, limit=8, period="hour")
    with fresh_databases() as make:
        world = World(make(), [hourly], Random(16))
        process = world.processes[0]
        # One in four minutes for some hours, each of which lasts for eight more.
        for _ in range(50):
            process.ask(KEYS[0], 1)
            world.answer_all()
            if len(process.admitted) > 2:
                process.settle(process.admitted[0], 1)
            world.pass_time(240)
        world.finish()
        wrong = world.look()
        spent = spent_of(world)
        world.close()

    assert not wrong
    assert (world.admitted, world.refused) == (sum(spent), 50 - sum(spent))
    assert spent == [7, 8, 8, 8]


def spent_of(world: World) -> list[int]:
    """Return what is spent, window by window."""
    with world.database.read() as connection:
        query = sa.select(budget_windows.c.spent).order_by(budget_windows.c.start)
        return list(connection.scalars(query))


def test_b17_amounts_that_round_to_nothing(shop: Shop, upstream: FakeUpstream) -> None:
    """Tokens of a millionth of a millionth of a dollar add up to exactly what they are."""
    upstream.answer([response(document({"prompt_tokens": 1, "completion_tokens": 0}))])
    times = 30

    for _ in range(times):
        assert shop.post("atoms", model="atom").status == 200

    assert shop.charged("atoms", "atom", times) == [1] * times
    with shop.meter.control as control:
        negative = {"model": "atom", "prompt_usd_per_mtok": "-1"}
        assert control.post("/api/v1/prices", json=negative).status_code == 400
        spent = {each["owner"]: each["spent"] for each in control.get("/api/v1/budgets").json()["data"]}
    assert spent["atoms"] == "0.00000000003"


def test_b18_many_keys(shop: Shop, upstream: FakeUpstream) -> None:
    """A budget above the keys counts them all, also those that were made a moment ago."""
    keys = [shop.meter.new_key(team="churn") for _ in range(4)]

    statuses = [wire.post(shop.meter.url, key, chat()).status for key in keys]

    assert statuses == [200, 200, 429, 429]
    assert len(upstream.received) == 2
    outcomes = [shop.meter.event(key).outcome for key in keys[:2]]
    assert outcomes == [Outcome.OK] * 2
