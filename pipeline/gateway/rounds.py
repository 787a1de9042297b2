"""Many requests to one endpoint, at one address or several, driven by the caller: nothing runs but while it waits for
the next answer.

A round sends as many requests as the pace allows, waits until something has arrived, and hands it over. The next round
begins when the caller has come back and so has kept what it got: never more than `concurrency` requests an address
are in flight or not yet kept.

An address takes the next request as it has answered one, so each gets as many as it is fast; where several have room,
the one that answers soonest. What one loses another is asked at once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

from pipeline.errors import CapReached, Refused
from pipeline.gateway import connection as http
from pipeline.gateway.connection import Connection, Passing, Reply
from pipeline.gateway.pace import Pace
from pipeline.memo.ledger import Ledger

A = TypeVar("A")
T = TypeVar("T")
# A server may have closed connections while the caller was away for longer; that is seen before one is used again.
AWAY_S = 1.0


@dataclass(eq=False, slots=True)
class Job(Generic[A]):
    """One HTTP request. `bound` is the most it may use, in tokens and US dollars; `used` what it did use. `reserved`
    tells whether the bound is counted as spent until what was used is known."""

    asked: A
    body: bytes
    bound: tuple[int, float] = (0, 0.0)
    used: tuple[int, float] = (0, 0.0)
    reserved: bool = False
    tries: int = 0
    # How many replies there had been when it last failed.
    seen: int = 0
    # Where it was asked last.
    lane: Lane | None = None


class Lane:
    """One address of an endpoint, and how it does: `losses` counts how often it went away, `lost` since it answered."""

    def __init__(self, connection: Connection, ceiling: int) -> None:
        self.connection, self.pace = connection, Pace(ceiling)
        self.flying = self.losses = self.lost = 0
        self.resume_at = 0.0

    @property
    def room(self) -> bool:
        """Whether it may be sent one more; who was lost gets one until it answers."""
        return self.flying < (1 if self.lost else int(self.pace.level))

    def lose(self, now: float) -> None:
        """It did not answer at all: leave it alone for a while that grows."""
        self.lost += 1
        self.losses += 1
        self.resume_at = max(self.resume_at, now + http.backoff(self.lost))


class Rounds(Generic[A, T]):
    """One call of `generate` or `read`, to be iterated once.

    What needs no asking stands among the jobs as its results. `understand` makes results of a reply; it raises
    `Passing` to ask again and `Refused` to end the run, after what is in flight has arrived. `give_up` makes results of
    the reason why a job failed for good.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        ledger: Ledger,
        path: str,
        jobs: Iterator[Job[A] | list[T]],
        understand: Callable[[Job[A], Reply], list[T]],
        give_up: Callable[[A, str], list[T]],
    ) -> None:
        self.lanes, self.ledger, self.path = lanes, ledger, path
        self.jobs, self.understand, self.give_up = jobs, understand, give_up
        self.connection = lanes[0].connection
        self.loop = self.connection.loop
        self.failure: Refused | None = None
        self._replies = self._results = 0
        # Time that the caller spent elsewhere, in which no reply could be received: it is not the server's.
        self._away = 0.0
        self._flying: dict[asyncio.Task[Reply], tuple[Job[A], float]] = {}
        self._landed: list[asyncio.Task[Reply]] = []
        self._again: list[tuple[float, int, Job[A]]] = []
        # What the caps have no room for yet.
        self._held: list[Job[A]] = []
        self._dry = False
        self._found: list[T] = []
        self._ended: list[Job[A]] = []
        self._number = itertools.count()

    def __iter__(self) -> Iterator[list[T]]:
        """What each round has found."""
        left = self.loop.time()
        try:
            while True:
                now = self.loop.time()
                self._away += now - left
                if now - left > AWAY_S:
                    self.loop.call_soon(self.loop.stop)
                    self.connection.run()
                self._launch(now)
                if not self._found:
                    wake = self._next_event(now)
                    if wake is None:
                        break
                    self._wait(wake)
                left = self.loop.time()
                self._settle()
                self._results += len(self._found)
                found, self._found = self._found, []
                if found:
                    yield found
        finally:
            self._abandon()
        if self.failure is not None:
            raise self.failure

    def _launch(self, now: float) -> None:
        """Send what may be sent now."""
        while self.failure is None and (free := [a for a in self.lanes if a.room and a.resume_at <= now]):
            job = self._next_job(now)
            if job is None:
                return
            lane = job.lane = min(free, key=partial(self._worth, job.lane))
            lane.flying += 1
            task = self.loop.create_task(lane.connection.send("POST", self.path, job.body))
            task.add_done_callback(self._land)
            self._flying[task] = job, now - self._away

    @staticmethod
    def _worth(before: Lane | None, lane: Lane) -> tuple[bool, bool, float, int]:
        """What is least for the lane that is to be asked; `before` is where the same job was asked last."""
        return lane.lost > 0, lane is before, lane.pace.latency, lane.flying

    def _next_job(self, now: float) -> Job[A] | None:
        """The next job that is due, with its most possible cost reserved."""
        job = None
        if self._again and self._again[0][0] <= now:
            job = heapq.heappop(self._again)[2]
        elif self._held:
            job = self._held.pop()
        while job is None:
            try:
                taken = next(self.jobs, None)
            except Refused as refused:
                self.failure = refused
                return None
            if taken is None:
                self._dry = True
                return None
            if isinstance(taken, Job):
                job = taken
            else:
                self._found += taken
        if job.reserved:
            return job
        try:
            self.ledger.reserve(*job.bound)
        except CapReached as reached:
            # What is in flight has the most reserved that it may cost, and will leave some of it.
            if self._flying or self._again:
                self._held.append(job)
            else:
                self.failure = CapReached(f"{reached} This run received {self._results} answers.")
            return None
        job.reserved = True
        return job

    def _next_event(self, now: float) -> float | None:
        """When there is something to do even if no reply comes; None if nothing is left to wait for."""
        times = []
        if self._flying:
            _, started = next(iter(self._flying.values()))
            times.append(started + self._away + self.connection.endpoint.timeout_s)
        if self.failure is None and (rooms := [lane.resume_at for lane in self.lanes if lane.room]):
            if self._again:
                times.append(max(self._again[0][0], min(rooms)))
            if self._held or not self._dry:
                times += [resume_at for resume_at in rooms if resume_at > now]
        return min(times, default=None)

    def _wait(self, wake: float) -> None:
        """Until a reply has arrived, or it is time to send or to give up."""
        if not self._landed:
            timer = self.loop.call_at(wake, self.loop.stop)
            try:
                self.connection.run()
            finally:
                timer.cancel()
        now = self.loop.time()
        for task in self._landed:
            self._take(task, now)
        self._landed.clear()
        for task, (_, started) in self._flying.items():
            if now - self._away - started < self.connection.endpoint.timeout_s:
                break
            task.cancel()

    def _land(self, task: asyncio.Task[Reply]) -> None:
        self._landed.append(task)
        self.loop.stop()

    def _take(self, task: asyncio.Task[Reply], now: float) -> None:
        """A finished exchange: its results, or what its failure means."""
        job, started = self._flying.pop(task)
        lane = job.lane
        assert lane is not None
        lane.flying -= 1
        try:
            if task.cancelled():
                raise lane.connection.late()
            found = self.understand(job, task.result())
        except Passing as failure:
            self._failed(job, lane, failure, started, now)
            return
        except Refused as failure:
            self._fail(job, failure)
            return
        lane.lost = 0
        lane.pace.answered(now - self._away - started)
        self._replies += 1
        self._found += found
        self._ended.append(job)

    def _failed(self, job: Job[A], lane: Lane, failure: Passing, started: float, now: float) -> None:
        if failure.busy:
            lane.pace.refused(started, now - self._away)
        if failure.billed:
            lost, job = job, replace(job, reserved=False)
            lost.used = lost.bound
            self._ended.append(lost)
        # An endpoint that answers others meanwhile only limits the rate: it is not failing.
        job.tries = 0 if failure.endpoint and self._replies > job.seen else job.tries + 1
        job.seen = self._replies
        if len(self.lanes) > 1 and failure.busy:
            lane.resume_at = max(lane.resume_at, now + (failure.wait_s or http.backoff(1)))
        elif len(self.lanes) > 1 and failure.endpoint:
            lane.lose(now)
        elsewhere = any(other is not lane and not other.lost and other.resume_at <= now for other in self.lanes)
        if elsewhere and (failure.endpoint or job.tries == 1):
            heapq.heappush(self._again, (now, next(self._number), job))
        elif failure.wait_s is not None and failure.wait_s > http.LONGEST_PAUSE_S:
            self._fail(job, lane.connection.again(f"{failure.text} and asks to wait {failure.wait_s:.0f} s"))
        elif job.tries <= lane.connection.endpoint.retries:
            due = now + http.backoff(job.tries)
            if failure.wait_s is not None:
                due = now + failure.wait_s
                # Others who were told the same do not all begin at once.
                lane.resume_at = max(lane.resume_at, due + random.random() * http.BACKOFF_S)
            heapq.heappush(self._again, (due, next(self._number), job))
        elif failure.endpoint:
            self._fail(job, lane.connection.again(f"{failure.text}, {job.tries} times in a row"))
        else:
            self._ended.append(job)
            try:
                self._found += self.give_up(job.asked, f"{failure.text} (tried {job.tries} times)")
            except Refused as refused:
                self.failure = self.failure or refused

    def _fail(self, job: Job[A], failure: Refused) -> None:
        self._ended.append(job)
        self.failure = self.failure or failure

    def _settle(self) -> None:
        """Count what was used instead of what was reserved, for all that ended in this round."""
        if ended := [job for job in self._ended if job.reserved]:
            bounds, uses = [job.bound for job in ended], [job.used for job in ended]
            self.ledger.settle(
                sum(t for t, _ in bounds), sum(c for _, c in bounds), sum(t for t, _ in uses), sum(c for _, c in uses)
            )
        self._ended.clear()

    def _abandon(self) -> None:
        """End what still runs. A server may bill what it was sent, so that counts in full."""
        left = [task for task in self._flying if not task.done()]
        for task in left:
            task.cancel()
        # Each that ends stops the loop.
        while not all(task.done() for task in left):
            self.connection.run()
        for task in self._flying:
            # An exception that nobody takes is reported when the task is forgotten.
            if task.done() and not task.cancelled():
                task.exception()
        for job, _ in self._flying.values():
            job.used = job.bound
            if job.lane is not None:
                job.lane.flying -= 1
        self._ended += [job for job, _ in self._flying.values()] + [job for _, _, job in self._again]
        self._flying.clear()
        self._again.clear()
        self._settle()
