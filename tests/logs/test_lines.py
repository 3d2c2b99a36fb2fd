"""A record is one line whatever is in it, its values are cut, and it holds no secret."""

import json
import logging
from typing import Any

import pytest

from meter.logs.lines import (
    EXCEPTION_CHARACTERS_MAX,
    FIELD_CHARACTERS_MAX,
    MESSAGE_CHARACTERS_MAX,
    JsonLines,
    Redaction,
    TextLines,
)

HOSTILE = 'a\n{"level":"error"}\x1b[2J\r\x00\x7f\x85\u2028\u202e\udc80'


def record(
    message: str, *arguments: object, fault: Exception | None = None, **fields: object
) -> logging.LogRecord:
    """Make a record, of a fault that was raised or of none."""
    raised = None if fault is None else (type(fault), fault, None)
    made = logging.LogRecord("meter.x", logging.INFO, "x.py", 1, message, arguments, raised)
    made.fields = fields
    return made


def as_json(made: logging.LogRecord, *secrets: str) -> dict[str, Any]:
    """Write a record as JSON, and read it."""
    line = JsonLines("data-0", Redaction(secrets)).format(made)
    assert line.isascii()
    assert line.isprintable()
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_record_is_a_json_object() -> None:
    """Time, level, logger, process, message and the fields; what is unknown is left out."""
    made = record("%d of %d", 1, 2, status=200, cost_usd=None, stream=False)
    made.created = 1_764_000_000.25

    assert as_json(made) == {
        "time": "2025-11-24T16:00:00.250Z",
        "level": "info",
        "logger": "meter.x",
        "process": "data-0",
        "message": "1 of 2",
        "status": 200,
        "stream": False,
    }


def test_no_value_makes_a_line_of_its_own() -> None:
    """Control characters are escaped, in messages and fields, and come back as they were."""
    found = as_json(record("model %s", HOSTILE, model=HOSTILE))

    assert (found["message"], found["model"]) == (f"model {HOSTILE}", HOSTILE)
    assert found["level"] == "info"


def test_values_are_cut() -> None:
    """A long value costs a bounded number of characters, and a traceback keeps its end."""
    found = as_json(record("m" * 10**6, model="n" * 10**6))
    with_fault = as_json(record("fault", fault=ValueError("x" * 10**5 + "the end")))

    assert found["message"] == f"{'m' * MESSAGE_CHARACTERS_MAX}..."
    assert found["model"] == f"{'n' * FIELD_CHARACTERS_MAX}..."
    assert len(with_fault["exception"]) == EXCEPTION_CHARACTERS_MAX + len("...")
    assert with_fault["exception"].endswith("the end")


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-abcdefghijkl",
        "mtr_019ab1c2_secretsecretsecret",
        "mta_019ab1c2_secretsecretsecret",
        "Bearer abc.def-ghi",
        "authorization: bearer abcdef",
        "postgresql://meter:hunter2@db/meter",
        "redis://:hunter2@cache:6379/0",
        "our own secret pepper",
    ],
)
def test_secrets_are_left_out(text: str) -> None:
    """What looks like a credential, and what the configuration says is one, is not in any line."""
    hidden = ("abcdefghijkl", "secretsecret", "abc.def", "abcdef", "hunter2", "pepper")
    secret = next(part for part in hidden if part in text)
    made = record("it said %s", text, fault=ValueError(text), field=text)

    for formatter in (JsonLines, TextLines):
        line = formatter("", Redaction(["our own secret pepper", "short"])).format(made)
        assert secret not in line
        assert line.count("[redacted]") == 3


def test_ordinary_words_stay() -> None:
    """What is no credential is told, addresses and ids too."""
    told = "upstream http://127.0.0.1:8080/v1: 12:30:01 skipped sk-1, 019ab1c2-7d1e-7c55-9f0a-3b6f0c1d2e3f"

    assert as_json(record(told), "short")["message"] == told


def test_text_for_people() -> None:
    """Text has a line a record and one a line of a traceback, and escapes what would move a cursor."""
    made = record("model %s", HOSTILE, fault=ValueError(HOSTILE), status=200)
    text = TextLines("", Redaction()).format(made)

    head, *rest = text.split("\n")
    assert " INFO meter.x: model a\\n{" in head
    assert head.endswith(" status=200")
    assert rest[0].startswith("ValueError: a")
    assert all(line.isprintable() for line in (head, *rest))
