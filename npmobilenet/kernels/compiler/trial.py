"""Which of several ways of doing the same is the fastest, found while it is done.

Single runs lie: a thread that slept through the other way's run has to wake first, and the least time of some runs is
that of the luckiest. So the ways take turns of several runs, as they would run if chosen, the first run of a turn isn't
counted, and medians decide. What was chosen stays unless another is better by more than noise.
"""

from __future__ import annotations

TURN = 8  # runs of a turn at most,
TURN_TIME = 2e6  # and no more than two as soon as they took so long: 2 ms, in ns
ROUNDS = 6  # of which each way has one turn
CLEAR = 0.8  # a way whose median is more than the best one's by this part has no more turns than two
BETTER = 0.95  # a way takes another's place only with a median below this part of that one's
# All are tried anew after so many times the runs that the trial took, and after twice as many whenever the same is
# chosen again. Another program may have had the second core: with 4,096 runs here, a model of 1.3 ms once stayed on one
# thread for a whole measurement, where two took 0.8. By reckoning a trial costs some 1 % of the time to the next, as
# slow ways have two turns only.
AGAIN = 16
RAREST = 1 << 20  # runs between two trials at most


class Trial:
    """`way` says how to run next, `took` hears how long that was. At first the last way counts as chosen; it begins."""

    def __init__(self, ways: int) -> None:
        self._ways = ways
        self._again = 0  # runs before the next trial
        self.chosen = ways - 1
        self._begin()

    def _begin(self) -> None:
        self._times: list[list[float]] = [[] for _ in range(self._ways)]
        self._turns = list(range(self._ways))[::-1]  # left of this round
        self._round = 1
        self._turn: list[float] = []
        self._runs = self._left = 0  # of this trial, and before the next
        self.deciding = self._ways > 1

    @property
    def way(self) -> int:
        """The way to take now."""
        return self._turns[0] if self.deciding else self.chosen

    def took(self, time: float) -> None:
        """What a run by `way` took, in ns."""
        if self.deciding:
            self._runs += 1
            self._turn.append(time)
            if len(self._turn) >= (2 if sum(self._turn) > TURN_TIME else TURN):
                self._times[self._turns.pop(0)] += self._turn[1:]
                self._turn = []
                if not self._turns:
                    self._end_round()
        elif self._ways > 1:
            self._left -= 1
            if self._left == 0:
                self._begin()

    def _end_round(self) -> None:
        medians = [sorted(times)[len(times) // 2] for times in self._times]  # statistics takes 10 ms to import
        best = min(medians)
        live = [way for way, time in enumerate(medians) if self._round == 1 or best >= CLEAR * time]
        if self._round < ROUNDS and len(live) > 1:
            self._round += 1
            self._turns = live[:: -1 if self._round % 2 else 1]
            return
        before, self.deciding = self.chosen, False
        if best < BETTER * medians[before]:
            self.chosen = medians.index(best)
        first = AGAIN * self._runs
        self._again = min(max(2 * self._again, first), RAREST) if self.chosen == before else first
        self._left = self._again
