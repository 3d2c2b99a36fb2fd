"""Budgets under everything that may happen, in any order, against the model of `tests/quota/world.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from meter.store import ledger
from meter.store.database import Database
from tests.faults.seeds import fresh_databases
from tests.quota.world import BUDGETS, COST_OF_TOKEN, KEYS, LOST, REFUSED, WELL, Process, World

FATES = st.sampled_from([WELL, WELL, WELL, LOST, REFUSED])
PROCESSES = st.integers(0, 1)


class Machine(RuleBasedStateMachine):
    """Anything may happen next."""

    fresh: "Iterator[Database]"

    def __init__(self) -> None:
        super().__init__()
        self.world = World(next(self.fresh), BUDGETS, Random(1))

    def _process(self, number: int) -> Process:
        return self.world.processes[number]

    @rule(number=PROCESSES, key_id=st.sampled_from(KEYS), tokens=st.integers(0, 50))
    def ask(self, number: int, key_id: str, tokens: int) -> None:
        """Ask for a request's admission."""
        self._process(number).ask(key_id, tokens)
        self.world.run()

    @rule(number=PROCESSES, fate=FATES)
    def answer(self, number: int, fate: str) -> None:
        """Have the database answer a question, or not."""
        if self._process(number).operations:
            self._process(number).answer(fate)
        self.world.run()

    @rule()
    def answer_all(self) -> None:
        """Have the database answer everything."""
        self.world.answer_all()

    @rule(number=PROCESSES, which=st.integers(0, 9), change=st.sampled_from([-50, -7, 0, 0, 0, 5]))
    def settle(self, number: int, which: int, change: int) -> None:
        """End a request that has used less than it reserved, as much, or more."""
        if found := self._process(number).admitted:
            request = found[which % len(found)]
            self._process(number).settle(request, max(0, request.tokens + change))

    @rule(number=PROCESSES, which=st.integers(0, 9))
    def leave(self, number: int, which: int) -> None:
        """Take a client away while its request waits, or have one not begin after all."""
        process = self._process(number)
        if process.requests:
            process.leave(process.requests[which % len(process.requests)])
            self.world.run()

    @rule(number=PROCESSES, count=st.integers(1, 5), fate=FATES)
    def ship(self, number: int, count: int, fate: str) -> None:
        """Ship some of the journal."""
        if self._process(number).journal:
            self._process(number).ship(count, fate)
            self.world.run()

    @rule(number=PROCESSES)
    def beat(self, number: int) -> None:
        """Have a process say that it lives."""
        self.world.start(self._process(number).treasury.beat())
        self.world.run()

    @rule(number=PROCESSES)
    def return_idle(self, number: int) -> None:
        """Have a process give back what it does not need."""
        self.world.start(self._process(number).treasury.return_idle())
        self.world.run()

    @rule(seconds=st.sampled_from([0.3, 1.0, 3.0, 3600.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass, perhaps to the next window."""
        self.world.pass_time(seconds)
        self.world.run()

    @rule(number=PROCESSES)
    def crash(self, number: int) -> None:
        """Let a process die."""
        self.world.crash(self._process(number))

    @precondition(lambda self: self.world.dead)
    @rule()
    def adopt(self) -> None:
        """Finish the journal of a dead process."""
        self.world.adopt(self.world.dead[0])

    @rule(limit=st.integers(0, 150))
    def change_limit(self, limit: int) -> None:
        """Edit a budget."""
        self.world.change_limit("org", limit * COST_OF_TOKEN)

    @invariant()
    def agrees(self) -> None:
        """Check that nothing is passed, nothing is refused falsely, and every sum is right."""
        found = self.world.look()
        assert not found, "\n".join(found)

    def teardown(self) -> None:
        """Ship and return everything: then nothing is reserved."""
        world = self.world
        try:
            world.finish()
            found = world.look()
            assert not found, "\n".join(found)
            assert world.reserved() == 0
            assert ledger.verify(world.database) == []
        finally:
            world.close()
            world.database.dispose()


@contextmanager
def machines() -> Iterator[type[Machine]]:
    """Give the machine with databases for its runs."""
    with fresh_databases() as make:

        class Run(Machine):
            fresh = iter(make, None)

        yield Run


def run_machine(examples: int, steps: int) -> None:
    """Run the machine so often, with so many steps each."""
    with machines() as machine:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )


def test_any_order_of_events_keeps_every_budget() -> None:
    """Admitted exactly what fits, whatever is lost, late, shipped twice or dead in between."""
    run_machine(20, 30)
