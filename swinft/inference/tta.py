"""Test-time augmentation: views of an image, whose predictions are averaged.

Shapes: B batch, V views, K outputs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from swinft.class_spec import InitArgsMixin, class_path_of, spec_name, to_spec
from swinft.errors import InputError, suggest

# timm evaluates most backbones at a centre crop of 0.875, for which they were tuned.
ZOOM_MARGIN = (1 - 0.875) / 2
CLOSE = 0.5  # of 255: libraries may round an image alone and in a batch differently


class View(InitArgsMixin):
    """Transforms images before prediction. A custom view derives from it, and defines `apply`."""

    swaps_sides: bool = False
    """Whether it swaps height and width, so that images must be square."""

    @property
    def name(self) -> str:
        """Its name in the provenance of predictions: class path and arguments, `tilt.Tilt(degrees=5)`."""
        return spec_name(to_spec(self, defaults=True))

    def apply(self, images: Tensor) -> Tensor:
        """Transforms a batch of images.

        Args:
            images: uint8 (B, 3, H, W) in RGB, or of as many channels as `data.image` stacks, on the device; float32 in
                0–255 with `data.loading.image_rules.keep`. Do not change them in place, other views use them.

        Returns:
            Images of the same shape, uint8, or float in 0–255. The result for an image must be deterministic, and
            independent of the other images in the batch.
        """
        raise NotImplementedError

    def invert(self, maps: Tensor) -> Tensor | None:
        """Brings maps of transformed images, (B, K, H, W), back to where the images were; None if that is not possible.

        Masks are averaged over views only by views that define it.
        """
        return None


class BuiltinView(View):
    """A built-in view.

    Args:
        name: Its name in a config.
        function: Transforms images (B, 3, H, W).
        swaps_sides: Whether it swaps height and width.
        inverse: Brings maps back; None if pixels are lost.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Tensor], Tensor],
        swaps_sides: bool = False,
        inverse: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._name, self._function, self.swaps_sides, self._inverse = name, function, swaps_sides, inverse

    @property
    def name(self) -> str:
        """Its name in a config."""
        return self._name

    def apply(self, images: Tensor) -> Tensor:
        """Transforms a batch of images."""
        return self._function(images)

    def invert(self, maps: Tensor) -> Tensor | None:
        """Brings maps back."""
        return None if self._inverse is None else self._inverse(maps)


def _rotated(quarters: int) -> Callable[[Tensor], Tensor]:
    return lambda images: images.rot90(quarters, (-2, -1))


def _scale(images: Tensor) -> Tensor:
    """Zooms into the centre: the middle 87.5 % of each side, enlarged to the full size."""
    height, width = images.shape[-2:]
    top, left = max(1, round(height * ZOOM_MARGIN)), max(1, round(width * ZOOM_MARGIN))
    crop = images[..., top:-top, left:-left].float()
    return functional.interpolate(crop, (height, width), mode="bilinear", align_corners=False, antialias=True)


VIEWS = {
    view.name: view
    for view in (
        BuiltinView("identity", lambda images: images, False, lambda maps: maps),
        BuiltinView("hflip", lambda images: images.flip(-1), False, lambda maps: maps.flip(-1)),
        BuiltinView("vflip", lambda images: images.flip(-2), False, lambda maps: maps.flip(-2)),
        BuiltinView("rot90", _rotated(1), True, _rotated(3)),
        BuiltinView("rot180", _rotated(2), False, _rotated(2)),
        BuiltinView("rot270", _rotated(3), True, _rotated(1)),
        BuiltinView("transpose", lambda images: images.mT, True, lambda maps: maps.mT),
        BuiltinView("scale", _scale),
    )
}


def chosen_views(given: Sequence[str | View]) -> list[View]:
    """The views, given by name or as custom objects.

    Raises:
        InputError: A name is unknown.
    """
    unknown = [str(each) for each in given if not isinstance(each, View) and each not in VIEWS]
    if unknown:
        hints = "".join(f"'{name}' is no view (predict.views).{suggest(name, VIEWS)} " for name in unknown)
        raise InputError(f"{hints}Views are {', '.join(VIEWS)}, and classes of your own.")
    return [each if isinstance(each, View) else VIEWS[each] for each in given]


def check_views(
    given: Sequence[str | View],
    image_size: tuple[int, int],
    channels: int = 3,
    are_floats: bool = False,
    are_maps: bool = False,
) -> None:
    """Checks that views can be averaged at an image size, and tests custom views.

    Args:
        given: Names in `VIEWS`, and custom views.
        image_size: Height and width in pixels.
        channels: C of the images.
        are_floats: Images are float32, as the image rule `keep` makes them, and not uint8.
        are_maps: Predictions are masks, which every view must bring back to where the images were.

    Raises:
        InputError: There is no view, or one is given twice, or swaps the sides of images that are not square; or a
            custom view fails, is random, or returns wrong images; or one loses pixels of masks.
    """
    views = chosen_views(given)
    names = [view.name for view in views]
    if not views or len(set(names)) < len(names):
        raise InputError(f"predict.views is {names}: name at least one view, each once, of {', '.join(VIEWS)}.")
    turned = sorted(view.name for view in views if view.swaps_sides)
    if turned and image_size[0] != image_size[1]:
        raise InputError(
            f"the views {turned} swap height and width, but data.image_size is {list(image_size)}. "
            f"Remove them from predict.views or use a square image_size."
        )
    for view in views:
        if not isinstance(view, BuiltinView) and (
            problem := _problem(view, (channels, *image_size), torch.float32 if are_floats else torch.uint8)
        ):
            raise InputError(f"predict.views: {class_path_of(type(view))}.apply {problem}.")
        if are_maps:
            _inverted(view, torch.zeros(1, 1, *image_size))


def _problem(view: View, shape: tuple[int, ...], dtype: torch.dtype) -> str:
    """The problem of a custom view with random pixels; empty if there is none."""
    images = torch.randint(0, 256, (2, *shape), generator=torch.Generator().manual_seed(0)).to(dtype)
    before = images.clone()
    try:
        with torch.inference_mode():
            found, again, alone = (view.apply(given) for given in (images, images, images[1:]))
    except Exception as error:  # custom code may raise anything
        given = f"{str(dtype).removeprefix('torch.')} images {tuple(images.shape)}"
        return f"fails for {given}: {type(error).__name__}: {error}"
    if not torch.equal(images, before):
        return "changes its input images, which other views and folds use, too: return new ones"
    if not isinstance(found, Tensor) or found.shape != images.shape:
        what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        return f"returns {what} for images {tuple(images.shape)}: it must return a tensor of the same shape"
    if found.dtype != torch.uint8 and not found.is_floating_point():
        return f"returns {found.dtype}: it must return uint8, or float in 0–255"
    if not (found.float() >= -CLOSE).all() or not (found.float() <= 255 + CLOSE).all():
        return f"returns pixels from {found.min():g} to {found.max():g}: they must be in 0–255"
    if not torch.equal(found, again):
        return "returns different pixels for the same images: it must be deterministic"
    if (found[1:].float() - alone.float()).abs().max() > CLOSE:
        return "returns other pixels for an image in another batch: each image must be processed independently"
    return ""


def predict_views(predict: Callable[[Tensor], Tensor], images: Tensor, views: Sequence[str | View]) -> Tensor:
    """The mean prediction over views, (B, K) or maps (B, K, H, W); arguments as of `predictions_by_view`.

    Predictions are averaged after decoding: the submission needs the mean of probabilities or target values, and the
    mean of logits would be another number.
    """
    return predictions_by_view(predict, images, views).mean(0)  # (V, B, K) -> (B, K)


def predictions_by_view(predict: Callable[[Tensor], Tensor], images: Tensor, views: Sequence[str | View]) -> Tensor:
    """The predictions of each view, in the competition's units.

    Args:
        predict: Images to decoded predictions (B, K).
        images: uint8 or float images (B, C, H, W), or (B, V, C, H, W): a view is applied to all images of a row alike.
        views: Names in `VIEWS`, and custom views.

    Returns:
        float32 predictions (V, B, K); maps (V, B, K, H, W), where the images were before the views.

    Raises:
        InputError: A view cannot bring maps back.
    """
    flat = images.flatten(0, -4) if images.ndim > 4 else images
    found = []
    for view in chosen_views(views):
        values = predict(view.apply(flat).reshape(images.shape)).float()
        found.append(values if values.ndim == 2 else _inverted(view, values))
    return torch.stack(found)


def _inverted(view: View, maps: Tensor) -> Tensor:
    """The maps of a view, where the images were before it.

    Raises:
        InputError: It cannot bring them back.
    """
    found = view.invert(maps)
    if found is None or found.shape != maps.shape:
        raise InputError(
            f"view '{view.name}' (predict.views) cannot bring masks back to where the images were: choose among "
            f"{', '.join(name for name, each in VIEWS.items() if each.invert(maps) is not None)}, or define `invert`."
        )
    return found
