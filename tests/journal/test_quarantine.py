"""What cannot be shipped is kept where somebody finds it."""

import base64
import stat
from pathlib import Path

from meter.journal.folder import Lost
from meter.journal.quarantine import FILE, RAW_BYTES_MAX, Quarantine
from meter.journal.segment import Damage
from tests.journal.conftest import event_id, make_settled, quarantined


def test_a_refused_event_is_kept_whole(tmp_path: Path) -> None:
    """The event is there with the reason, which does not grow without end."""
    Quarantine(tmp_path).keep_event(make_settled(5), "because " * 1000)

    (line,) = quarantined(tmp_path)
    assert line["event"]["event_id"] == event_id(5)
    assert line["event"]["completion_tokens"] == 5
    assert line["reason"].startswith("because because")
    assert len(line["reason"]) == 1000


def test_lost_bytes_are_kept_with_their_place(tmp_path: Path) -> None:
    """Bytes that could not be read are there as they are, with whose journal they were in and where."""
    quarantine = Quarantine(tmp_path)

    quarantine.keep_lost("a", Lost(3, Damage(10, 13, torn=True), b"\x00\xff\n"))
    quarantine.keep_lost("b", Lost(4, Damage(0, 10**6, torn=False), b"x" * 10**6))

    first, second = quarantined(tmp_path)
    assert base64.b64decode(first.pop("raw")) == b"\x00\xff\n"
    assert first == {"reason": "torn", "holder": "a", "segment": 3, "start": 10, "end": 13}
    assert (second["reason"], second["end"]) == ("damaged", 10**6)
    assert len(base64.b64decode(second["raw"])) == RAW_BYTES_MAX


def test_what_lies_there_is_counted(tmp_path: Path) -> None:
    """The count is of all processes that ever put something there."""
    assert len(Quarantine(tmp_path)) == 0

    for number in range(3):
        Quarantine(tmp_path).keep_event(make_settled(number), "refused")

    assert len(Quarantine(tmp_path)) == 3


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    """Events name keys and tags, which are nobody else's business."""
    Quarantine(tmp_path).keep_event(make_settled(1), "refused")

    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
