"""Which trials are the best, and what is kept of them."""

from dataclasses import replace

from swinft.tuning.results import Row, best_of, kept, pareto, ranked
from swinft.tuning.study import Settings

LOW = Settings("s", {}, ["score"], "tpe", "none", 1, [0, 1], "rmse", False)


def row(number, score, seconds=1.0, state="complete", objectives=("score", "seconds")):
    values = {"score": score, "seconds": seconds}
    return Row(number, state, 2, score, {name: values[name] for name in objectives}, {}, seconds=seconds)


def test_the_metric_has_a_direction_and_earlier_trials_come_first():
    rows = [row(0, 0.5), row(1, 0.3), row(2, 0.3), row(3, 0.1, state="pruned"), Row(4, "failed", 0, None, {}, {})]
    assert [each.number for each in ranked(rows, LOW)] == [1, 2, 0]
    assert [each.number for each in ranked(rows, replace(LOW, higher_is_better=True))] == [0, 1, 2]
    assert kept(rows, LOW, 2) == {1, 2}
    assert kept(rows, LOW, 0) == set()
    assert best_of([rows[3]], LOW) is None


def test_no_trial_of_the_front_is_beaten_in_everything():
    both = replace(LOW, objective=["score", "seconds"])
    rows = [row(0, 0.5, 1.0), row(1, 0.3, 5.0), row(2, 0.4, 5.0), row(3, 0.3, 6.0), row(4, 0.5, 1.0)]
    assert [each.number for each in pareto(rows, both)] == [1, 0, 4]  # 4 is as good as 0
    assert kept(rows, both, 1) == {0, 1, 4}
    assert best_of(rows, replace(both, objective=["seconds"])).number in (0, 4)
