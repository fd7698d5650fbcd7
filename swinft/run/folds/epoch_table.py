"""The table of epochs that a fold prints: a header, and a line per epoch of at most 100 characters."""

from swinft.printing import format_brief, format_rate

WIDTH = 100
NUMBER = 9  # characters of `1.234e-05` and `-1.23e-05`
MARK = " *"  # marks the best epoch so far
TIMES = {"img/s": 7, "time": 7, "fold left": 9}  # widths of the last columns
RUN_LEFT = {"run left": 9}


class EpochTable:
    """Formats the epochs of one fold.

    The first metric always has a column; the others and the learning rate have one if there is room. All values are in
    `metrics.jsonl`.

    Args:
        fold: Number of the fold.
        planned: Planned epochs.
        metrics: Names of the metrics; the first one decides the best epoch.
        has_run: Whether the time left for the whole run is known.
    """

    def __init__(self, fold: int | str, planned: int, metrics: list[str], has_run: bool) -> None:
        self._fold, self._planned = fold, planned
        self._start = len(self._epoch(planned))
        ends = {**TIMES, **(RUN_LEFT if has_run else {})}
        room = WIDTH - len(MARK) - self._start - sum(2 + width for width in ends.values())
        numbers = {"train_loss": 10, "val_loss": NUMBER}
        room -= sum(2 + width for width in numbers.values())
        optional = [*metrics, "lr"]
        for index, name in enumerate(optional):
            width = max(NUMBER, min(len(name), room - 2) if index == 0 else len(name))
            if index == 0 or 2 + width <= room:
                numbers[name] = width
                room -= 2 + width
        self.hidden = [name for name in optional if name not in numbers]
        self._numbers, self._ends = numbers, ends

    def header(self) -> str:
        """Names of the columns."""
        columns = {**self._numbers, **self._ends}
        return " " * self._start + _cells({name: name for name in columns}, columns)

    def line(
        self,
        values: dict[str, float],
        images_per_second: float,
        fold_left: tuple[float, bool],
        run_left: tuple[float, bool] | None,
        is_best: bool,
    ) -> str:
        """One epoch.

        Args:
            values: As in `metrics.jsonl`: `epoch`, `seconds`, losses, metrics with the prefix `val_`, `lr`.
            images_per_second: Speed of the training.
            fold_left: Seconds left, and whether they are a rough estimate.
            run_left: The same for the whole run; None if unknown.
            is_best: Whether this is the best epoch so far.
        """
        shown = {name: values.get(name, values.get(f"val_{name}")) for name in self._numbers}
        cells = {name: "" if value is None else _number(value) for name, value in shown.items()}
        cells |= {"img/s": format_rate(images_per_second), "time": format_brief(values["seconds"])}
        cells |= {"fold left": format_left(*fold_left), "run left": format_left(*run_left) if run_left else ""}
        start = self._epoch(int(values["epoch"])).ljust(self._start)
        return start + _cells(cells, {**self._numbers, **self._ends}) + (MARK if is_best else "")

    def _epoch(self, epoch: int) -> str:
        return f"fold {self._fold}  epoch {epoch}/{self._planned}"


def format_left(seconds: float, is_rough: bool) -> str:
    """`12m 5s`; `about 12m` for a rough estimate."""
    return f"about {format_brief(seconds, is_rough=True)}" if is_rough else format_brief(seconds)


def _number(value: float) -> str:
    text = f"{value:.4g}"
    return text if len(text) <= NUMBER else f"{value:.3g}"


def _cells(texts: dict[str, str], widths: dict[str, int]) -> str:
    """Columns aligned on the right; a name that is too long is cut."""
    cut = {
        name: texts[name] if len(texts[name]) <= width else f"{texts[name][: width - 1]}…"
        for name, width in widths.items()
    }
    return "".join(f"  {cut[name].rjust(width)}" for name, width in widths.items())
