"""Other activations in a run's network: put in without training, and trained alike."""

from collections.abc import Mapping
from typing import Any

from timm.layers import get_act_layer  # type: ignore[attr-defined]

from swinft.laboratory.instrument import Instrument, Line
from swinft.laboratory.retrained import check_finished, comparison, gains_panel, retrained
from swinft.laboratory.subjects import RunSubject, Subject
from swinft.laboratory.training_options import ActSettings
from swinft.model.backbones.activations import KEY, activations, check_activation, replace_activations
from swinft.pages.figures import Drawing

SWAPPED, TRAINED = "swapped", "trained"


class Act(Instrument[ActSettings]):
    """Compares activations."""

    name = "act"
    title = "Activations"
    about = (
        "Each activation twice: swapped, in the trained network without further training, on held-out rows of a fold; "
        "and trained, by a run with the same config and folds in which only model.backbone_args.act_layer differs, on "
        "all out-of-fold rows. Activations of gates (SE, GLU) and of position biases stay.",
        "A gain is positive where the other activation is better, whatever the metric. Intervals of 95 % are of "
        "resampled rows: those of another seed of the training are not in them.",
    )

    def check(self, subject: Subject) -> None:
        """Refuses unknown activations, and runs that cannot be compared."""
        assert isinstance(subject, RunSubject)
        for each in self.settings.activations:
            check_activation(each)
        check_finished(subject)

    def decides(self) -> dict[str, Any]:
        """Nothing: a step has one activation in its name."""
        return {}

    def steps(self, subject: Subject) -> list[str]:
        """Each activation swapped, then each trained that the network does not have already."""
        assert isinstance(subject, RunSubject)
        own = {type(module).__name__ for module in activations(subject.net.backbone.model).values()}
        others = [name for name in self.settings.activations if own != {get_act_layer(name).__name__}]
        return [*(f"{SWAPPED} {name}" for name in self.settings.activations), *(f"{TRAINED} {name}" for name in others)]

    def measure(self, subject: Subject, step: str) -> list[Line]:
        """One activation, in one way."""
        assert isinstance(subject, RunSubject)
        how, name = step.split(" ")
        first = {"activation": name, "how": how}
        if how == SWAPPED:
            return [first | self._swapped(subject, name)]
        arguments = dict(subject.experiment.config.model.backbone_args or {})
        changes = {"model.backbone_args": {**arguments, KEY: name}}
        count = len(activations(subject.net.backbone.model))
        return [first | comparison(subject, retrained(subject, self.name, name, changes)) | {"replaced": count}]

    def _swapped(self, subject: RunSubject, name: str) -> Line:
        net = subject.network()
        before = subject.scores(subject.predict(net))
        count = replace_activations(net.backbone.model, name)
        after = subject.scores(subject.predict(net))
        metric, rows = subject.metric, len(subject.rows)
        gain = subject.losses(before, after)  # how much worse it was before
        found = {"metric": metric, "rows": rows, "score": after[metric], "base": before[metric], "gain": gain}
        return found | {"low": None, "high": None, "replaced": count}

    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """The gain of each activation in each way."""
        found: dict[str, Any] = {"activations replaced": lines[0]["replaced"]}
        for line in lines:
            found[f"{line['activation']}, {line['how']}: gain"] = line["gain"]
            if line["low"] is not None:
                found[f"{line['activation']}, {line['how']}: interval"] = [line["low"], line["high"]]
        return found

    def notes(self, summary: dict[str, Any]) -> list[str]:
        """Whether a difference is larger than that of resampled rows."""
        found = []
        for key, interval in summary.items():
            if key.endswith(": interval"):
                name, gain = key.removesuffix(": interval"), summary[key.replace(": interval", ": gain")]
                is_sure = interval[0] > 0 or interval[1] < 0
                what = f"{'differs' if is_sure else 'does not differ'} by more than resampled rows do"
                found.append(f"{name}, {what}: {gain:+.3g} ({interval[0]:+.3g} to {interval[1]:+.3g}).")
        return found

    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """Gains in both ways."""
        names = list(dict.fromkeys(line["activation"] for lines in measured.values() for line in lines))

        def panel(how: str) -> Any:
            chosen = {key: [line for line in lines if line["how"] == how] for key, lines in measured.items()}
            return lambda figure: gains_panel(figure, chosen, names, "activation")

        height = 1.2 + 0.5 * len(names)
        return [
            Drawing("Trained with another activation.", panel(TRAINED), height),
            Drawing("Another activation in the trained network, without training.", panel(SWAPPED), height),
        ]
