"""What the upstream does in a soak: by the kind of request, and by the mood that it is in."""

import random
from dataclasses import replace

from tests.fake_upstream import Gate
from tests.faults.script import Plan

WELL, RESETS, STALLS = "well", "resets", "stalls"
KINDS = {
    "json": Plan(pieces=1, pause=0, streams=False),
    "stream": Plan(pieces=10, pause=0.05),
    "leaver": Plan(pieces=20, pause=0.05),
    "crowd": Plan(pieces=100, pause=0.1),
    "slow": Plan(pieces=60, pause=0, filler=1 << 14),
}


class Moods:
    """Makes plans for requests, by their model and the mood of the moment."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._gate = Gate()
        self.mood = WELL

    def plan(self, model: str) -> Plan:
        """Return how a request is answered; `soak-3-json-17` is one of the third minute."""
        plan = KINDS.get(model.split("-")[2], KINDS["json"])
        if self.mood == RESETS:
            return replace(plan, cut_after=self._random.randrange(plan.pieces + 1))
        if self.mood == STALLS and plan.streams:
            return replace(plan, before_usage=self._gate)
        return replace(plan, before_head=self._gate) if self.mood == STALLS else plan

    def go_on(self) -> None:
        """Let those go on that stall, and be well again."""
        self.mood = WELL
        gate, self._gate = self._gate, Gate()
        gate.open()
