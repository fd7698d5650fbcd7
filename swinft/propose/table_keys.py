"""Keys of a proposed config that say where rows and images are: tables, templates, sources, ids."""

import re
from typing import Any

from swinft.propose.draft import Draft
from swinft.propose.images import Shown
from swinft.propose.roles import Roles, id_column, test_id_column
from swinft.propose.shape import Files, Pixels, Reshaped


def add_tables(draft: Draft, roles: Roles, shape: Reshaped, shown: Shown) -> None:
    """The tables, their encoding, and the images of their rows."""
    table = shape.train
    unused = [f"not used: {each.path}" for each in roles.others[:6] if each.path != table.path]
    draft.add("data.train", [*table.steps] or table.path, shape.why, *unused)
    if shape.test.steps:
        draft.add("data.test", shape.test.steps, shape.test.why)
    elif roles.test is not None:
        draft.add("data.test", [*roles.test.steps] or roles.test.path, roles.reasons["test"])
    if roles.sample is not None:
        given = shape.test.sample_steps or [*roles.sample.steps] or roles.sample.path
        more = "" if roles.test or shape.test.steps else roles.reasons["test"]
        draft.add("data.sample_submission", given, roles.reasons["sample_submission"], more)
    elif roles.test is None and not shape.test.steps:
        draft.notes.append(
            "there is neither a sample submission nor a table of rows to predict: `swinft predict` needs --test, and "
            "`swinft submit` cannot be used"
        )
    encodings = {each.encoding for each in (table, roles.test, roles.sample) if each is not None} - {"utf-8"}
    if encodings:
        draft.add("data.columns.encoding", min(encodings), "the tables are not UTF-8")
    _add_images(draft, roles, shape, shown)


def _add_images(draft: Draft, roles: Roles, shape: Reshaped, shown: Shown) -> None:
    """The images' templates and sources."""
    image, test_image = shape.image, shape.test.image
    if image is None:
        draft.leave_open("data.image", "{id}.jpg", "no image's name is made of cells of the table")
        return
    why = f"{image.found:.0%} of a sample of rows have this file; {image.group.pattern}: {image.group.count:,} files"
    others = [f"also possible: {each.path}" for each in shape.other_images[:3]]
    is_made = image.path == "{path}" or "{" not in image.path
    made_of = shape.made_of
    channels = made_of.channels if isinstance(made_of, Pixels) else ()
    given_image = {"path": [*channels], "channels": "grey"} if channels else _several(image.path)
    why = "a channel of the image each" if channels else "" if is_made else why
    if isinstance(made_of, Files):
        paths = [*made_of.paths]
        given_image = {"path": paths, "channels": "grey"} if made_of.are_channels else paths
        what = "one channel each: together they are one image" if made_of.are_channels else "the network sees all"
        why = f"each row has {len(paths)} files, {what}; {why}"
    draft.add("data.image", given_image, why, *others)
    if roles.predicted is not None or shape.test.steps:
        if test_image is None:
            guess = re.sub(r"\btrain(ing)?(?=[\W_]|$)", "test", image.path)
            why = "the rows to predict have no images here; in a code competition they are there in the scored run only"
            draft.hint("data.columns.test_image", guess, why)
            draft.notes.append(f"data.columns.test_image: {why}")
        elif test_image.path != image.path:
            why = f"{test_image.found:.0%} of a sample of the rows to predict have this file"
            draft.add("data.columns.test_image", [*shape.test.files] or test_image.path, why)
    source = image.container
    if source != "files":
        why = f"the images are read from {image.group.folder.split('/')[0]} without unpacking it"
        draft.add("data.loading.source", source, why)
    if test_image is not None and test_image.container != source:
        why = f"the images of the rows to predict are in {test_image.group.folder}"
        draft.add("data.loading.test_source", test_image.container, why)
    for key, value, why in shape.loading:
        draft.add(key, value, why)
    given = draft.known.loading if draft.known else {}
    for key, value in given.items():
        draft.add(f"data.loading.{key}", value, f"as usual in this competition; {shown.why}" if shown.why else "")
    if shown.rules and "image_rules" not in given:
        draft.add("data.loading.image_rules", shown.rules, shown.why)
    elif shown.why and not given:
        draft.notes.append(f"data.loading.image_rules: {shown.why}")


def _several(path: str) -> Any:
    """A template, with the number of images where a row may have several."""
    return {"path": path, "max": 16} if "*" in path and "{" in path else path


def id_of(shape: Reshaped, roles: Roles) -> tuple[str | None, str]:
    """The id column of training rows, and why; None where no column is one."""
    return shape.id or id_column(shape.train, shape.image, [roles.sample_id])


def add_ids(draft: Draft, roles: Roles, shape: Reshaped) -> list[str]:
    """The id columns of the tables; returns those that the training table or the rows to predict have."""
    id, why = id_of(shape, roles)
    if id is None:
        draft.leave_open("data.id", "id", f"{why}: name a column, or add {{number: id}} to the steps of data.train")
        return []
    draft.add("data.id", id, why)
    if shape.test.id is not None:
        if shape.test.id != id:
            draft.add("data.columns.test_id", shape.test.id, "the rows to predict are named by another column")
        if roles.sample_id not in (None, shape.test.id):
            draft.add("submission.id", roles.sample_id, "the sample submission names its rows by another column")
        return [id, shape.test.id]
    if roles.test is None:
        if roles.sample_id not in (None, id):
            why = "the sample submission names its rows by another column than the training table"
            draft.add("data.columns.test_id", roles.sample_id, why)
        return [id]
    test_id = test_id_column(roles.test, roles.sample, id)
    if test_id is None:
        missing = f"no column of {roles.test.path} has the ids of the sample submission"
        draft.leave_open("data.columns.test_id", "id", missing)
        return [id]
    if test_id != id:
        why = f"{roles.test.path} names its rows by another column than the training table"
        draft.add("data.columns.test_id", test_id, why)
    if roles.sample_id not in (None, test_id):
        draft.add("submission.id", roles.sample_id, "the sample submission names its rows by another column")
    return [id, test_id]
