"""The running values of an answer: documents and events, one after the other."""

import json

from meter.core.answer import CHOICES_MAX, Answer
from meter.core.estimate import RunningCount, count_tokens
from meter.core.sse import Event, Events


def answer() -> Answer:
    """Make an answer of which nothing has been read."""
    return Answer(RunningCount(count_tokens))


def event(document: object) -> Event:
    """Make the event of a document."""
    (found,) = Events().feed(b"data: " + json.dumps(document).encode() + b"\n\n")
    assert isinstance(found, Event)
    return found


def test_a_later_usage_lies_over_an_earlier_one() -> None:
    """Members that a later usage does not have stay, and the count of chunks says that there were two."""
    read = answer()
    read.read_event(event({"usage": {"prompt_tokens": 9, "completion_tokens": 1}}))
    read.read_event(event({"usage": {"completion_tokens": 4}}))

    observed = read.observation(None, None)

    assert observed.usage is not None
    assert (observed.usage.prompt_tokens, observed.usage.completion_tokens) == (9, 4)
    assert observed.usage_chunks == 2


def test_text_after_a_usage_is_counted_apart() -> None:
    """A running count is told by what comes behind it."""
    read = answer()
    read.read_document(b'{"usage":{"prompt_tokens":9,"completion_tokens":1}}')
    read.read_document(b'{"choices":[{"index":0,"delta":{"content":"two words"}}]}')

    observed = read.observation(None, None)

    assert observed.emitted_since_usage == observed.emitted_tokens > 0


def test_what_was_stopped_reports_no_usage() -> None:
    """Why the reading was stopped is the first of the anomalies."""
    read = answer()
    read.read_document(b'{"usage":{"prompt_tokens":9,"completion_tokens":1}}', whole=True)

    observed = read.observation("body_too_large", None)

    assert observed.usage is None
    assert observed.anomalies[0] == "body_too_large"


def test_choices_are_read_up_to_a_bound() -> None:
    """Whoever sends more choices than there may be is read no further."""
    read = answer()
    choices = [{"index": index, "finish_reason": f"r{index}"} for index in range(CHOICES_MAX + 5)]
    read.read_document(json.dumps({"choices": choices}).encode(), whole=True)

    assert len(read.observation(None, None).finish_reasons) == CHOICES_MAX
