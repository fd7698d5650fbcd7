"""The time left of folds and of everything, by the events of simulated runs: what is said beside what comes true."""

import heapq
from dataclasses import dataclass

import pytest

from swinft.run.folds.forecast import Forecast
from swinft.system import overview
from swinft.system.overview import Overview
from swinft.system.pace import MOST_MARKS, Pace
from swinft.system.status import Status
from tests.clock import Clock


@dataclass
class Plan:
    """A fold whose seconds are known."""

    epochs: int = 10
    batches: int = 50
    held_out: int = 20
    start_up: float = 12.0
    warm_up: float = 40.0  # in the first batch
    batch: float = 1.0
    held_out_batch: float = 0.4
    gap: float = 3.0  # after an epoch: its checkpoint
    views: int = 2
    tail: float = 5.0  # after the predictions
    ends_after: int | None = None  # an early stop
    done: int = 0  # epochs of an earlier process
    speed: object = staticmethod(lambda now: 1.0)

    def events(self, began):
        """Times and statuses of the fold's process; None for its end."""
        now = began + self.start_up
        forecast = Forecast(self.epochs, self.views, self.start_up)
        is_most = self.ends_after is not None

        def status(stage, epochs):
            left, whole = forecast.left(now, epochs), forecast.whole(now, epochs, bool(self.done))
            return Status("", stage, left=left, whole=whole, is_rough=forecast.is_rough, is_most=is_most)

        for epoch in range(self.done, self.ends_after or self.epochs):
            forecast.begin(now)
            for batch in range(self.batches):
                now += self.batch * self.speed(now) + (self.warm_up if epoch == self.done and batch == 0 else 0)
                forecast.batches, forecast.held_out = self.batches, self.held_out
                forecast.trained(now)
                yield now, status("epoch", self.epochs - epoch - (batch + 1) / self.batches)
            for _ in range(self.held_out):
                now += self.held_out_batch * self.speed(now)
                forecast.validated(now)
                yield now, status("validation", self.epochs - epoch - 1)
            forecast.end(now)
            now += self.gap
        batches = self.views * self.held_out
        for number in range(batches):
            now += self.held_out_batch * self.speed(now)
            yield now, Status("", "out-of-fold", stage_left=(batches - number - 1) * self.held_out_batch)
        yield now + self.tail, None


def simulated(monkeypatch, plans, at_a_time=1, **given):
    """Pairs of the time and what was then said to be left; and when everything was done."""
    clock = Clock()
    monkeypatch.setattr(overview, "time", clock)
    parts = {number: 1 - plan.done / plan.epochs for number, plan in enumerate(plans)}
    folds = Overview({number: f"fold {number}" for number in range(len(plans))}, at_a_time, parts=parts, **given)
    waiting, running, said = list(range(len(plans))), [], []

    def advance(number, events):
        found = next(events, None)
        if found:
            heapq.heappush(running, (found[0], number, found[1], events))

    for _ in range(at_a_time):
        number = waiting.pop(0)
        folds.started(number)
        advance(number, plans[number].events(0.0))
    while running:
        clock.now, number, status, events = heapq.heappop(running)
        if status is not None:
            folds.heard(number, status)
            advance(number, events)
        else:
            folds.ended(number)
            if waiting:
                number = waiting.pop(0)
                folds.started(number)
                advance(number, plans[number].events(clock.now))
        left, _ = folds.left()
        if left is not None:
            said.append((clock.now, left))
    return said, clock.now + given.get("after", 0.0)


def worst(found, first, last):
    """The largest difference from what came true between two shares of the time, as a share of what was left."""
    said, end = found
    return max(
        abs(left - (end - now)) / (end - now) for now, left in said if first * end <= now <= last * end and end > now
    )


def test_even_folds_are_foretold_from_the_first_epoch_on(monkeypatch):
    found = simulated(monkeypatch, [Plan() for _ in range(3)], after=20.0)
    assert len(found[0]) > 2000
    assert worst(found, 0.03, 0.1) < 0.08  # in the first epoch, where neither checkpoints nor predictions are known
    assert worst(found, 0.1, 0.95) < 0.04


@pytest.mark.parametrize("at_a_time", [2, 4])
def test_folds_side_by_side(monkeypatch, at_a_time):
    found = simulated(monkeypatch, [Plan() for _ in range(5)], at_a_time)
    assert worst(found, 0.1, 0.9) < 0.04


def test_a_long_warm_up_counts_once_a_fold(monkeypatch):
    plans = [Plan(warm_up=600.0, epochs=6) for _ in range(3)]
    assert worst(simulated(monkeypatch, plans), 0.24, 0.9) < 0.1  # from the second batch on, at 22 % of the time
    assert worst(simulated(monkeypatch, plans[:1]), 0.66, 0.9) < 0.1


@pytest.mark.parametrize("slower", [3.0, 1 / 3])
def test_a_machine_that_changes_its_speed_is_noticed_within_a_few_epochs(monkeypatch, slower):
    changes = 0.4 * simulated(monkeypatch, [Plan(epochs=30)])[1]
    said, end = simulated(monkeypatch, [Plan(epochs=30, speed=lambda now: 1.0 if now < changes else slower)])
    errors = [((now - changes) / (58 * slower), abs(left / (end - now) - 1)) for now, left in said if now < 0.95 * end]
    assert max(error for epochs, error in errors if epochs > 2.5) < 0.7
    assert max(error for epochs, error in errors if epochs > 4) < 0.25
    assert max(error for epochs, error in errors if epochs > 6.5) < 0.1


def test_one_slow_fold(monkeypatch):
    slow = Plan(speed=lambda _: 3.0)
    said, end = simulated(monkeypatch, [Plan(), slow, Plan()])
    half = min(said, key=lambda pair: abs(pair[0] - end / 2))
    assert half[1] == pytest.approx(end - half[0], rel=0.35)  # nobody knows that the third one is fast again
    assert half[1] > end - half[0]


def test_early_stops_are_upper_limits_and_then_expected(monkeypatch):
    plans = [Plan(ends_after=4) for _ in range(3)]
    said, end = simulated(monkeypatch, plans)
    assert all(left >= (end - now) * 0.99 for now, left in said if now > 60)
    second = [(now, left) for now, left in said if now > end / 3 + 1]
    assert second[0][1] == pytest.approx(end - second[0][0], rel=0.02)


def test_resumed_folds_take_what_is_left_of_them(monkeypatch):
    plans = [Plan(done=7), Plan(done=2), Plan()]
    found = simulated(monkeypatch, plans)
    assert worst(found, 0.2, 0.9) < 0.08


def test_steps_that_end_within_an_epoch():
    forecast = Forecast(2.5, 1, 0.0)
    forecast.batches, forecast.held_out = 10, 0
    now = 0.0
    for epoch in range(2):
        forecast.begin(now)
        for _ in range(10):
            now += 1.0
            forecast.trained(now)
        forecast.end(now)
        assert forecast.left(now, 2.5 - epoch - 1) == pytest.approx(10 * (1.5 - epoch))
    forecast.begin(now)
    for _ in range(2):
        now += 1.0
        forecast.trained(now)
    assert forecast.left(now, 0.3) == pytest.approx(3.0)


def test_a_pace_forgets_slow_beginnings_and_keeps_few_times():
    pace, now = Pace(), 0.0
    assert pace.seconds is None
    for number in range(10 * MOST_MARKS):
        now += 50.0 if number < 100 else 2.0
        pace.add(now)
    assert pace.seconds == pytest.approx(2.0)
    assert len(pace._marks) <= MOST_MARKS + 1
    assert pace.done == 10 * MOST_MARKS
