"""The reading end: settles in order, in batches, and what nobody settled."""

import shutil

import pytest

from meter.core.attempts import interrupted
from meter.journal.backlog import Backlog, Batch, left_open
from meter.journal.folder import CURSOR, Cursor, Folder, Position
from meter.journal.records import decode_settle, encode
from tests.journal.conftest import (
    event_id,
    intent,
    make_attempt,
    make_settled,
    progress,
    settle,
    write_segment,
)


def take(backlog: Backlog, events_max: int = 1000) -> Batch:
    """Take a batch that has to be there."""
    batch = backlog.take(events_max)
    assert batch is not None
    return batch


def numbers(batch: Batch) -> list[int]:
    """Return which attempts a batch settles."""
    return [event.completion_tokens for event in batch.events]


def test_settles_come_in_order_and_in_batches(folder: Folder) -> None:
    """Batches have at most so many events, go over segments, and end where nothing is left."""
    write_segment(folder, 1, intent(1), settle(1), intent(2), settle(2))
    write_segment(folder, 2, intent(3), progress(3, 7), settle(3))
    backlog = Backlog(folder)

    first, second = take(backlog, 2), take(backlog, 2)

    assert (numbers(first), numbers(second)) == ([1, 2], [3])
    assert first.events[0] == make_settled(1)
    assert backlog.take(2) is None


def test_records_without_events_are_read_past(folder: Folder) -> None:
    """A batch may hold no event at all; acknowledging it moves on."""
    ends = write_segment(folder, 1, intent(1), progress(1, 7))
    backlog = Backlog(folder)

    batch = take(backlog)
    backlog.acknowledge(batch)

    assert batch == Batch([], [], Position(1, ends[-1]))
    assert Backlog(folder).take(1) is None


def test_what_is_written_later_is_found(folder: Folder) -> None:
    """The end of what was there is not the end for ever."""
    write_segment(folder, 1, settle(1))
    backlog = Backlog(folder)
    take(backlog)
    assert backlog.take(1000) is None

    write_segment(folder, 2, settle(2))

    assert numbers(take(backlog)) == [2]


def test_nothing_is_read_beyond_the_writer(folder: Folder) -> None:
    """What stands behind the writer's position may be half written."""
    ends = write_segment(folder, 1, settle(1), settle(2))
    place = [Position(1, ends[0])]
    backlog = Backlog(folder, end=lambda: place[0])

    first, nothing = take(backlog), backlog.take(1000)
    place[0] = Position(1, ends[1])

    assert (numbers(first), nothing) == ([1], None)
    assert numbers(take(backlog)) == [2]


def test_where_the_writer_has_not_gone_on_nobody_looks(folder: Folder) -> None:
    """A reader that stands where the writer does leaves the disk alone."""
    (end,) = write_segment(folder, 1, settle(1))
    backlog = Backlog(folder, end=lambda: Position(1, end))
    take(backlog)
    shutil.rmtree(folder.path)

    assert backlog.take(1000) is None


def test_what_is_no_settle_is_told_by_its_beginning() -> None:
    """Intents and notes of progress are not read to ship settles; what is none of them is read as ever."""
    assert decode_settle(encode(intent(1))) is None
    assert decode_settle(encode(progress(1, 2**40))) is None
    assert decode_settle(encode(settle(1))) == settle(1)
    # As a later version may write it, with another member.
    assert decode_settle(b"\x83" + encode(intent(1))[1:] + b"\xa3new\x01") == intent(1)
    with pytest.raises(ValueError, match="Invalid value"):
        decode_settle(b"\x81\xa4type\xa1z")


def test_what_was_acknowledged_is_not_taken_again(folder: Folder) -> None:
    """A reader that begins anew begins behind what the ledger has; what was only taken comes again."""
    write_segment(folder, 1, settle(1), settle(2), settle(3))
    backlog = Backlog(folder, open_from=lambda: 1)
    backlog.acknowledge(take(backlog, 1))
    taken = take(backlog, 1)

    anew = take(Backlog(folder))
    backlog.rewind()

    assert (numbers(taken), numbers(anew), numbers(take(backlog))) == ([2], [2, 3], [2, 3])
    assert folder.read_cursor() == backlog.cursor
    assert backlog.cursor.open_from == 1


def test_damage_is_handed_over_once(folder: Folder) -> None:
    """What cannot be read comes with the batch around it, and its end is passed."""
    ends = write_segment(folder, 1, settle(1), settle(2), settle(3))
    data = bytearray(folder.segment(1).read_bytes())
    data[ends[0] + 30] ^= 0xFF
    folder.segment(1).write_bytes(data)
    backlog = Backlog(folder)

    batch = take(backlog)

    assert numbers(batch) == [1, 3]
    assert [(lost.damage.start, lost.damage.end) for lost in batch.lost] == [(ends[0], ends[1])]
    assert backlog.take(1000) is None


def test_a_cursor_that_cannot_be_written_stops_nothing(folder: Folder) -> None:
    """A disk without room for a cursor is shipped all the same: only a restart would begin further back."""
    write_segment(folder, 1, settle(1), settle(2))
    (folder.path / f"{CURSOR}.new").mkdir()
    backlog = Backlog(folder)

    backlog.acknowledge(take(backlog, 1))
    backlog.rewind()

    assert numbers(take(backlog)) == [2]
    assert numbers(take(Backlog(folder))) == [1, 2]


def test_segments_that_are_gone_are_passed_over(folder: Folder) -> None:
    """What was deleted after it had been shipped is missed by nobody."""
    write_segment(folder, 1, settle(1))
    write_segment(folder, 3, settle(3))
    folder.segment(1).unlink()

    assert numbers(take(Backlog(folder))) == [3]


def test_open_intents_become_interrupted_events(folder: Folder) -> None:
    """An intent without a settle is charged its prompt's estimate and what was noted last."""
    write_segment(folder, 1, intent(1), intent(2), progress(2, 7), intent(3), settle(1))
    write_segment(folder, 2, progress(2, 9))

    events = left_open(folder)

    assert events == [interrupted(make_attempt(2), 9), interrupted(make_attempt(3), 0)]
    assert [event.prompt_tokens for event in events] == [40, 40]


@pytest.mark.parametrize("order", [(7, 9), (9, 7)])
def test_the_most_that_was_noted_counts(folder: Folder, order: tuple[int, int]) -> None:
    """A note that was written anew behind a later one takes nothing back."""
    write_segment(folder, 1, intent(1), *(progress(1, tokens) for tokens in order))

    assert left_open(folder) == [interrupted(make_attempt(1), 9)]


def test_an_intent_that_was_written_anew_is_settled_all_the_same(folder: Folder) -> None:
    """After a failed sync an intent may stand behind its settle."""
    write_segment(folder, 1, intent(1), settle(1), intent(1), intent(2), intent(2))

    assert [event.event_id for event in left_open(folder)] == [event_id(2)]


def test_only_segments_that_may_hold_open_intents_are_read(folder: Folder) -> None:
    """The cursor says from where on; what stands before it has been deleted or is settled."""
    write_segment(folder, 1, intent(1))
    write_segment(folder, 2, intent(2))
    folder.write_cursor(Cursor(Position(2, 0), 2))

    assert [event.event_id for event in left_open(folder)] == [event_id(2)]


def test_a_copied_folder_is_the_same_journal(folder: Folder) -> None:
    """A journal that was copied elsewhere has the same ids, so that the ledger takes each event once."""
    write_segment(folder, 1, intent(1), settle(1), intent(2))
    copied = Folder(folder.path.with_name("copy"))
    shutil.copytree(folder.path, copied.path)

    assert take(Backlog(copied)).events == take(Backlog(folder)).events
    assert left_open(copied) == left_open(folder)
