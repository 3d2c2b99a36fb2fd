"""Rating again: every event of a time is looked at, and corrected where the price book says otherwise now."""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from meter.core.corrections import Cause, judge
from meter.core.prices import PriceBook
from meter.core.repricing import Repricing, Selection
from meter.store import corrections, months
from meter.store.database import Database


def reprice(
    database: Database,
    book: PriceBook,
    asked: Selection,
    cause: Cause,
    now: Callable[[], datetime],
    *,
    apply: bool,
) -> Repricing:
    """Work out what rating again changes, and change it by corrections if it is to be applied.

    What was corrected stays corrected where this is cut short, and the next run goes on from there.
    """
    told = Repricing(asked, {month.month for month in months.list_all(database)})
    decide = partial(judge, book=book, cause=cause)
    for accounts in corrections.pages(database, asked.since, asked.until):
        needing = []
        for account in accounts:
            if not asked.holds(account.event):
                continue
            verdict = decide(account)
            told.look(account, verdict)
            if verdict.correction is not None:
                needing.append((account, verdict.correction))
        if apply and needing:
            needing = corrections.correct(database, [account for account, _ in needing], decide, now())
        for account, correction in needing:
            told.add(account, correction)
    if apply:
        database.checkpoint()
    return told
