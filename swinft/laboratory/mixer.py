"""Swin-Mixer against Swin: the run's network with an MLP over the tokens of a window, trained alike."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from timm.models.swin_transformer import SwinTransformer

from swinft.errors import InputError
from swinft.laboratory.instrument import Instrument, Line
from swinft.laboratory.retrained import check_finished, comparison, gains_panel, retrained, size_of
from swinft.laboratory.subjects import RunSubject, Subject
from swinft.laboratory.training_options import MixerSettings
from swinft.model.backbones.swin_mlp import SwinMLP
from swinft.pages.figures import Drawing
from swinft.run.api import Run

BACKBONE = "swin_mlp_tiny_c24_patch4_window8_256"
MIXER = "Swin-Mixer"


class Mixer(Instrument[MixerSettings]):
    """Compares a Swin-Mixer with a Swin."""

    name = "mixer"
    title = "Swin-Mixer"
    about = (
        "The run's Swin against a Swin-Mixer of the same width, depth, windows and shifts, which mixes the tokens of a "
        "window by a linear layer for each head in the place of attention (Liu et al., Swin Transformer, 2021, "
        "appendix A3.3). It is trained by the run's config on the run's folds; only model.backbone and its arguments "
        "differ. In the paper Swin-Mixer-T reaches 79.4 to 79.7 % on ImageNet-1K with 4.0 G operations, where Swin-T "
        "with heads of 24 channels reaches 81.6 % with 5.9 G.",
        "A gain is positive where the mixer is better. Intervals of 95 % are of resampled rows: another seed of "
        "the training is not in them.",
    )

    def check(self, subject: Subject) -> None:
        """Refuses runs of other networks than Swin V1 from random weights.

        Raises:
            InputError: The run's network is another one, or its training was not from random weights.
        """
        assert isinstance(subject, RunSubject)
        check_finished(subject)
        config = subject.experiment.config.model
        if config.pretrained:
            raise InputError(
                f"{subject.given} was trained from pretrained weights ({config.pretrained}), and a mixer of its "
                f"architecture has none here: train it with --model.pretrained false, so that both start alike."
            )
        model = subject.net.backbone.model
        if not isinstance(model, SwinTransformer) or isinstance(model, SwinMLP):
            raise InputError(f"{subject.given} has a {type(model).__name__}, and a mixer is compared with a Swin V1.")
        self.arguments(subject)

    def arguments(self, subject: RunSubject) -> dict[str, Any]:
        """Arguments of a mixer with the width, depth and windows of a run's Swin.

        Raises:
            InputError: `--head_channels` does not divide the channels of a stage.
        """
        model: Any = subject.net.backbone.model
        blocks = [stage.blocks[0] for stage in model.layers]
        each, widths = self.settings.head_channels, [block.dim for block in blocks]
        if each is not None and any(width % each for width in widths):
            raise InputError(f"--head_channels is {each}; it must divide the channels of every stage, {widths}.")
        heads = [block.attn.num_heads if each is None else block.dim // each for block in blocks]
        found = {"embed_dim": model.embed_dim, "depths": [len(stage.blocks) for stage in model.layers]}
        found |= {"num_heads": heads, "patch_size": model.patch_embed.patch_size[0]}
        ratios = {block.mlp_ratio for block in blocks}
        found |= {"mlp_ratio": ratios.pop()} if len(ratios) == 1 else {}
        window = blocks[0].window_size
        grids = [tuple(map(min, block.input_resolution, window)) for block in blocks]
        is_one = all(grid == block.window_size for grid, block in zip(grids, blocks, strict=True))
        found |= {"window_size": window[0] if window[0] == window[1] else list(window)} if is_one else {}
        return found

    def steps(self, subject: Subject) -> list[str]:
        """One training."""
        return [MIXER]

    def measure(self, subject: Subject, step: str) -> list[Line]:
        """Both networks."""
        assert isinstance(subject, RunSubject)
        changes = {"model.backbone": BACKBONE, "model.backbone_args": self.arguments(subject)}
        made = retrained(subject, self.name, "mixer", changes)
        found = comparison(subject, made)
        given = subject.experiment.config.data.image_size
        side = (given, given) if isinstance(given, int) else (given[0], given[1])
        own = {**found, "score": found["base"], "gain": 0.0, "low": None, "high": None}
        net = Run(made.root, subject.options.allow_code or ()).network(subject.fold.index)
        return [
            {"network": "Swin", **own, **size_of(subject.net, side)},
            {"network": MIXER, **found, **size_of(net, side)},
        ]

    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """Scores and sizes."""
        found: dict[str, Any] = {}
        for line in lines:
            found |= {f"{line['network']}: {key}": line[key] for key in ("score", "parameters", "gmacs")}
        last = lines[-1]
        return found | {"gain": last["gain"], "interval": [last["low"], last["high"]]}

    def notes(self, summary: dict[str, Any]) -> list[str]:
        """Whether the difference is larger than that of resampled rows."""
        low, high = summary["interval"]
        what = "is better" if low > 0 else "is worse" if high < 0 else "does not differ by more than resampled rows do"
        return [f"Swin-Mixer {what}: {summary['gain']:+.3g} ({low:+.3g} to {high:+.3g})."]

    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """The gain of the mixer."""

        def gains(figure: Figure) -> None:
            gains_panel(figure, measured, [MIXER], "network")

        return [Drawing("Swin-Mixer against the run's Swin.", gains, 2.0)]
