"""How a network's score falls on corrupted images, and on images with noise of one band of frequencies.

Shapes: B batch, V images of a row, C channels, H and W pixels, N rows, K outputs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.laboratory.corruptions import CORRUPTIONS, Pixels, Random, band_noise, corrupted
from swinft.laboratory.instrument import Instrument, Line
from swinft.laboratory.options import RobustSettings
from swinft.laboratory.subjects import Batch, RunSubject, Subject
from swinft.pages.figures import SOFT, Drawing, color_of, label, panels

CLEAN, BAND = "clean", "band noise"
THIRD = 1 / 3  # frequencies below it are low, those above two of it high


class Robust(Instrument[RobustSettings]):
    """Scores the rows again with every corruption at every severity, and with noise of every band."""

    name = "robust"
    title = "Robustness"
    about = (
        "The rows are predicted again after a corruption of their images at the size that the network sees, with the "
        "views of the out-of-fold predictions. Severity 0 is the image itself: with all rows of the fold its score is "
        "the out-of-fold score. The loss is how much worse the run's first metric is than that. Random numbers are "
        "those of the row, the same at every severity and for every network.",
        "Band noise is white noise of a tenth of the frequencies with the same deviation in every band. In Park and "
        "Kim, How Do Vision Transformers Work? (ICLR 2022, figure 2b), noise of high frequencies hurts a ResNet more "
        "than a ViT, and noise of low ones a ViT more.",
    )

    def check(self, subject: Subject) -> None:
        """Refuses colours that an image does not have.

        Raises:
            InputError: A corruption of colours was asked for, and images have not three channels.
        """
        assert isinstance(subject, RunSubject)
        given = self.settings.corruptions or []
        if "saturation" in given and subject.net.backbone.num_channels != 3:
            raise InputError(f"--corruptions saturation: images of {subject.label} have no colours. Remove it.")

    def steps(self, subject: Subject) -> list[str]:
        """The clean rows, every corruption at every severity, and every band."""
        assert isinstance(subject, RunSubject)
        names = self.settings.corruptions
        if names is None:
            has_colors = subject.net.backbone.num_channels == 3
            names = [name for name in CORRUPTIONS if has_colors or name != "saturation"]
        steps = [f"{name} {severity}" for name in names for severity in self.settings.severities]
        return [CLEAN, *steps, *(f"{BAND} {number}" for number in range(self.settings.bands))]

    def measure(self, subject: Subject, step: str) -> list[Line]:
        """The scores after one corruption."""
        assert isinstance(subject, RunSubject)
        base = subject.intact
        if step == CLEAN:
            line = {"corruption": CLEAN, "severity": 0, "level": None, "loss": 0.0, "changed": 0.0, **base.scores}
            return [line | {"from_oof": _difference(subject, base.values)}]
        name, _, number = step.rpartition(" ")
        if name == BAND:
            width = 1 / self.settings.bands
            low, high = int(number) * width, (int(number) + 1) * width
            strength, level = 255 * self.settings.noise, round((low + high) / 2, 6)

            def change(pixels: Pixels, random: Random) -> Pixels:
                shape = (pixels.shape[0], pixels.shape[1], pixels.shape[2])
                noisy: Pixels = np.clip(pixels + band_noise(shape, low, high, strength, random), 0, 255)
                return noisy
        else:
            level = CORRUPTIONS[name].levels[int(number) - 1]

            def change(pixels: Pixels, random: Random) -> Pixels:
                return corrupted(pixels, name, int(number), random)

        values = subject.predict(subject.net, _changed(subject, name, change))
        scores = subject.scores(values)
        line = {"corruption": name, "severity": None if name == BAND else int(number), "level": float(level)}
        line |= {"loss": subject.losses(scores, base.scores), "changed": float(np.abs(values - base.values).mean())}
        return [line | scores | {"from_oof": None}]

    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """The clean score, the mean loss of all corruptions, the worst one, and that of low and high frequencies."""
        found: dict[str, Any] = {}
        others = {"corruption", "severity", "level", "loss", "changed", "from_oof"}
        clean = next((line for line in lines if line["corruption"] == CLEAN), None)
        if clean:
            found = {f"{name}, clean": value for name, value in clean.items() if name not in others}
            found["largest difference from oof.csv"] = clean["from_oof"]
        losses = [line for line in lines if line["loss"] is not None and line["corruption"] not in (CLEAN, BAND)]
        if losses:
            found["mean loss, corruptions"] = float(np.mean([line["loss"] for line in losses]))
            worst = max(losses, key=lambda line: line["loss"])
            found["largest loss, corruptions"] = worst["loss"]
            of_which = f"{worst['corruption']}, severity {worst['severity']}"
            found |= {"of which": of_which} if worst["loss"] > 0 else {}
        bands = [line for line in lines if line["corruption"] == BAND and line["loss"] is not None]
        for text, low, high in (("low", 0.0, THIRD), ("high", 1 - THIRD, 1.0)):
            known = [line["loss"] for line in bands if low <= line["level"] <= high]
            found |= {f"mean loss, noise of {text} frequencies": float(np.mean(known))} if known else {}
        return found

    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """The loss against the severity, a panel for each corruption; and against the frequency of the noise."""
        names = list(dict.fromkeys(line["corruption"] for lines in measured.values() for line in lines))
        kinds = [name for name in names if name not in (CLEAN, BAND)]

        def severities(figure: Figure) -> None:
            for axis, name in zip(panels(figure, len(kinds), columns=4, share=True), kinds, strict=True):
                for number, lines in enumerate(measured.values()):
                    known = [line for line in lines if line["corruption"] == name and line["loss"] is not None]
                    points = [0, *(line["severity"] for line in known)], [0, *(line["loss"] for line in known)]
                    axis.plot(*points, color=color_of(number), marker="o", markersize=3, linewidth=1)
                axis.axhline(0, color=SOFT, linewidth=0.8)
                label(axis, name.replace("_", " "), "severity", "loss")
            _legend(figure, measured)

        def frequencies(figure: Figure) -> None:
            axis = figure.subplots()
            for number, lines in enumerate(measured.values()):
                known = [line for line in lines if line["corruption"] == BAND and line["loss"] is not None]
                points = [line["level"] for line in known], [line["loss"] for line in known]
                axis.plot(*points, color=color_of(number), marker="o", markersize=4)
            axis.axhline(0, color=SOFT, linewidth=0.8)
            label(axis, "", "frequency of the noise / π", "loss of score")
            _legend(figure, measured)

        found = []
        if kinds:
            text = "How much worse the first metric is, by severity."
            found.append(Drawing(text, severities, 0.6 + 2.1 * -(-len(kinds) // 4)))
        if BAND in names:
            strength = f"with a deviation of {self.settings.noise:g} of the range"
            found.append(
                Drawing(f"How much worse it is with noise of one band of frequencies {strength}.", frequencies)
            )
        return found


def _changed(subject: RunSubject, name: str, change: Callable[[Pixels, Random], Pixels]) -> list[Batch]:
    """The batches with every image changed."""
    found = []
    for batch in subject.batches:
        images = batch["image"]
        flat = images.reshape(-1, *images.shape[-3:])
        each = len(flat) // len(images)  # images of a row
        parts = []
        for number, image in enumerate(flat):
            row, place = int(batch["row"][number // each]), number % each
            pixels = np.ascontiguousarray(image.numpy().transpose(1, 2, 0), dtype=np.float32)
            parts.append(change(pixels, subject.generator(f"{name} {row} {place}")).transpose(2, 0, 1))
        stacked = torch.from_numpy(np.stack(parts)).reshape(images.shape)
        found.append({**batch, "image": _as_before(stacked, images)})
    return found


def _as_before(changed: Tensor, images: Tensor) -> Tensor:
    """Images of the type and the memory format that the network's were."""
    typed = changed.round().to(torch.uint8) if images.dtype == torch.uint8 else changed.to(images.dtype)
    if images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last):
        return typed.contiguous(memory_format=torch.channels_last)
    return typed


def _difference(subject: RunSubject, values: Any) -> float:
    """The largest difference of predictions from those that the fold has written."""
    written = Predictions.read(subject.fold.oof, values.shape[1])
    of_id = {id: row for row, id in enumerate(written.ids)}
    ids = [subject.data.train_table.ids[row] for row in subject.rows]
    return float(np.abs(values - written.values[[of_id[id] for id in ids]]).max(initial=0.0))


def _legend(figure: Figure, measured: Mapping[str, list[Line]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color_of(number), label=name) for number, name in enumerate(measured)]
    figure.legend(handles=handles, loc="outside upper center", ncols=6)
