"""Crashes, cancels and lost answers from seeds, in the world of `tests/quota/world.py`."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

from meter.store import ledger
from meter.store.database import Database
from tests.faults.seeds import fresh_databases
from tests.quota.world import BUDGETS, COST_OF_TOKEN, KEYS, LOST, REFUSED, WELL, Process, World

STEPS_MAX = 40
# After each of so many steps everything is held against the model, and at the end in any case.
LOOKS = 8


Step = Callable[[World, Process, Random], object]


def ask(_world: World, process: Process, random: Random) -> None:
    """Ask for a request's admission."""
    process.ask(random.choice(KEYS), random.randrange(50))


def answer(_world: World, process: Process, random: Random) -> None:
    """Have the database answer a question, or not."""
    if process.operations:
        process.answer(fate(random))


def lose(_world: World, process: Process, random: Random) -> None:
    """Have no answer of the database come."""
    if process.operations:
        process.answer(random.choice([LOST, REFUSED]))


def settle(_world: World, process: Process, random: Random) -> None:
    """End a request that has used less than it reserved, as much, or more."""
    if process.admitted:
        request = random.choice(process.admitted)
        process.settle(request, max(0, request.tokens + random.choice([-50, -7, 0, 0, 0, 5])))


def leave(_world: World, process: Process, random: Random) -> None:
    """Take a client away while its request waits, or have one not begin after all."""
    if process.requests:
        process.leave(random.choice(process.requests))


def ship(_world: World, process: Process, random: Random) -> None:
    """Ship some of the journal."""
    if process.journal:
        process.ship(random.randrange(1, 6), fate(random))


def adopt(world: World, _process: Process, _random: Random) -> None:
    """Finish the journal of a dead process."""
    if world.dead:
        world.adopt(world.dead[0])


def fate(random: Random) -> str:
    """Say how the database answers."""
    return random.choice([WELL, WELL, WELL, LOST, REFUSED])


# What may happen, and how often beside the others.
STEPS: tuple[tuple[Step, int], ...] = (
    (ask, 8),
    (answer, 8),
    (lambda world, _process, _random: world.answer_all(), 2),
    (settle, 5),
    (leave, 2),
    (ship, 4),
    (lambda world, process, _random: world.start(process.treasury.beat()), 2),
    (lambda world, process, _random: world.start(process.treasury.return_idle()), 2),
    (lambda world, _process, random: world.pass_time(random.choice([0.3, 1.0, 3.0, 3600.0])), 2),
    (lambda world, process, _random: world.crash(process), 1),
    (adopt, 2),
    (lambda world, _process, random: world.change_limit("org", random.randrange(150) * COST_OF_TOKEN), 1),
)


# In every other seed more goes wrong.
RUDE_STEPS: tuple[tuple[Step, int], ...] = (
    *STEPS,
    (lose, 10),
    (leave, 6),
    (lambda world, process, _random: world.crash(process), 4),
    (adopt, 3),
)


def step(world: World, random: Random, steps: Sequence[tuple[Step, int]]) -> None:
    """Let something happen."""
    (chosen,) = random.choices([each for each, _ in steps], weights=[weight for _, weight in steps])
    chosen(world, random.choice(world.processes), random)
    world.run()


def run_seed(seed: int, database: Database, injected: Counter[str]) -> list[str]:
    """Run one seed; returns what is wrong, a sentence each."""
    random = Random(seed)
    world = World(database, BUDGETS, random)
    try:
        for number in range(random.randrange(5, STEPS_MAX)):
            step(world, random, RUDE_STEPS if seed % 2 else STEPS)
            if number % LOOKS == 0 and (found := world.look()):
                return [f"seed {seed}, step {number}: {each}" for each in found]
        world.finish()
        found = world.look() + ledger.verify(database)
        found += [f"{left} are reserved for nobody" for left in [world.reserved()] if left]
        return [f"seed {seed}: {each}" for each in found]
    finally:
        injected.update(world.injected)
        world.close()


def violations(seeds: Iterable[int], injected: Counter[str] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Run seeds, each on a database of its own; yields each with what is wrong, and counts what was done."""
    counted = Counter() if injected is None else injected
    with fresh_databases() as make:
        for seed in seeds:
            database = make()
            try:
                yield seed, run_seed(seed, database, counted)
            finally:
                database.dispose()


if __name__ == "__main__":
    for _seed, faults in violations(range(*map(int, sys.argv[1:]))):
        for fault in faults:
            sys.stdout.write(f"{fault}\n")
