"""The page of explanations: one HTML file, which requests nothing."""

from collections.abc import Sequence
from typing import Any

from swinft.pages.page import image_uri, render
from swinft.printing import format_score, visible
from swinft.run.explain.options import ExplainOptions

QUALITY = 88  # of images on the page, as JPEG
TITLES = {
    "gradcam": "Grad-CAM",
    "rollout": "Attention rollout",
    "windows": "Attention in windows",
    "integrated-gradients": "Integrated gradients",
    "occlusion": "Occlusion",
}
MEANINGS = {
    "gradcam": "Bright: positions of the layer that raise the output. The scale ends at the strongest one of the row.",
    "rollout": "Bright: tokens whose content reaches what the head reads, through attention and residual connections.",
    "windows": "Bright: tokens that get more attention than others of their window. Lines: where windows begin.",
    "integrated-gradients": "Red pixels raise the output, compared with the baseline; blue ones lower it. "
    "Their sum is the difference from the baseline, but for the completeness error.",
    "occlusion": "Red: covering this part lowers the output; blue: covering it raises the output.",
}


def page_of(name: str, options: ExplainOptions, shown: Sequence[tuple[Any, Sequence[Any]]]) -> str:
    """The HTML.

    Args:
        name: Name of the run.
        options: The method and its settings.
        shown: Each `Explanation`, with image and overlay of each of its images.
    """
    rows = [
        {
            "id": visible(made.id),
            "output": visible(made.output),
            "value": format_score(made.value),
            "networks": ", ".join(made.networks),
            "facts": [
                (key.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
                for key, value in made.facts.items()
                if value is not None
            ],
            "same": "" if made.difference is None else f"{made.difference:.1g}",
            "images": [[image_uri(each, "jpeg", quality=QUALITY) for each in pair] for pair in pictures],
        }
        for made, pictures in shown
    ]
    title = TITLES[options.method]
    return render(
        "swinft.run.explain",
        f"{name}: {title}",
        styles=["page.css"],
        meaning=MEANINGS[options.method],
        method=title,
        rows=rows,
    )
