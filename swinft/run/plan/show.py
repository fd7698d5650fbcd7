"""A plan as text."""

from swinft.errors import number_of
from swinft.printing import format_seconds
from swinft.run.plan.cost import Plan, mean_parts
from swinft.system.limits import format_bytes


def described(plan: Plan) -> list[str]:
    """The lines that `swinft plan` prints."""
    parts = mean_parts(plan.folds)
    whole = sum(parts.values())
    lines = [plan.what, f"on {plan.device}{': an estimate' if plan.is_estimate else ''}", f"{'a training':<28}seconds"]
    lines += [f"  {name:<26}{seconds:>7.1f}{seconds / whole:>6.0%}" for name, seconds in parts.items()]
    lines.append(f"  {'together':<26}{whole:>7.1f}")
    at_a_time = "one at a time" if plan.at_a_time == 1 else f"{plan.at_a_time} at a time"
    per_fold = f" on {number_of(plan.per_fold, 'device')} each" if plan.per_fold > 1 else ""
    lines.append(f"{number_of(len(plan.folds), 'training')}, {at_a_time}{per_fold}: {number_of(plan.rounds, 'round')}")
    around = f"checks {plan.before:.1f} s, scores and report {plan.after:.1f} s"
    lines.append(f"fit: {format_seconds(plan.fit)} ({around})")
    lines.append(
        "predict: there are no rows to predict" if plan.test is None else f"predict: {format_seconds(plan.test)}"
    )
    lines.append(f"device hours: {plan.device_hours:.3g}")
    memory, size = plan.memory
    fits = "" if plan.fits else ": the batch does not fit; set data.batch_size to less"
    about = "about " if plan.is_estimate else ""
    lines.append(f"memory of a device: {about}{format_bytes(memory)} of {format_bytes(size)}{fits}")
    lines.append(f"disk: up to {format_bytes(plan.disk)} of weights and checkpoints")
    return [*lines, *(f"note: {note}" for note in plan.notes)]
