"""Crashes anywhere, from seeds: `SEEDS` says how many, `SEED` names the one to look at."""

import os
import sys

import pytest

from tests.faults.seeds import PLANS, run_seeds, violations
from tests.faults.table import Row

SEEDS = int(os.environ.get("SEEDS", "150"))
SEED = os.environ.get("SEED")
# So that several processes share the work.
SHARES = 4


@pytest.mark.skipif(SEED is not None, reason="SEED names another one")
@pytest.mark.parametrize("share", range(SHARES))
def test_no_crash_loses_or_repeats_an_event(share: int) -> None:
    """Wherever a process dies, after recovery each attempt has its one event, and the ledger adds up."""
    found = {seed: faults for seed, faults in violations(range(share, SEEDS, SHARES)) if faults}

    sys.stdout.write(f"| crashes, share {share} | {len(range(share, SEEDS, SHARES))} | {len(found)} |\n")
    shown = [fault for faults in found.values() for fault in faults]
    assert not found, "\n".join([*shown, "Run one again with SEED=n pytest tests/faults/test_seeds.py"])


@pytest.mark.skipif(SEED is None, reason="no SEED is named")
def test_the_named_seed() -> None:
    """One seed, in SQLite or in memory as it was, shows its violations."""
    assert SEED is not None

    ((_, faults),) = violations([int(SEED)])

    assert not faults, "\n".join(faults)


@pytest.mark.skipif(SEED is not None, reason="SEED names another one")
def test_the_table_has_every_experiment() -> None:
    """The table has a row for each kind of fault, with how often it was run."""
    rows = run_seeds(2 * len(PLANS))

    assert rows == [Row(plan.name, "in process", 2) for plan in PLANS]
