"""The page of explanations: one HTML file without scripts, which requests nothing."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from swinft.printing import format_score
from swinft.run.explain.options import ExplainOptions

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
    template = Environment(
        loader=PackageLoader("swinft.run.explain", "."), autoescape=True, undefined=StrictUndefined
    ).get_template("page.html")
    rows = [
        {
            "id": made.id,
            "output": made.output,
            "value": format_score(made.value),
            "networks": ", ".join(made.networks),
            "facts": [
                (key.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
                for key, value in made.facts.items()
                if value is not None
            ],
            "same": "" if made.difference is None else f"{made.difference:.1g}",
            "images": [(_jpeg(image), _jpeg(overlay)) for image, overlay in pictures],
        }
        for made, pictures in shown
    ]
    return template.render(
        name=name, title=TITLES[options.method], meaning=MEANINGS[options.method], method=options.method, rows=rows
    )


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
