"""From facts to a config: every key with its reason, what was weighed besides, and what could not be decided."""

from dataclasses import dataclass, replace
from typing import Any

from swinft.data.tables.text import MISSING_WORDS
from swinft.propose.draft import SEVERAL, Draft, some
from swinft.propose.facts import Facts
from swinft.propose.grouping import Group, Metadata, find_group, find_metadata
from swinft.propose.images import Shown, look_at
from swinft.propose.known import KNOWN, Known
from swinft.propose.lines import Line
from swinft.propose.masks import TILE, exclusive, of_mask_files, tile_of, with_mask_files
from swinft.propose.parts import with_starts
from swinft.propose.patterns import patterns_of
from swinft.propose.reshape import by_folders, reshaped, with_flags
from swinft.propose.roles import Roles, find_roles
from swinft.propose.shape import Pixels, Reshaped
from swinft.propose.table_keys import add_ids, add_tables, id_of
from swinft.propose.targets import Target, find_target
from swinft.propose.training import KINDS, fold_lines, metric_line, model_lines, size_lines


@dataclass(frozen=True)
class Proposal:
    """A proposed config.

    Args:
        lines: Its keys.
        notes: What could not be decided, or is to be known, one sentence each.
        target: What is predicted; None where that is undecided.
        group: The groups of the folds.
    """

    lines: list[Line]
    notes: list[str]
    target: Target | None = None
    group: Group | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The keys that the config sets, by their dotted names."""
        return {line.key: line.value for line in self.lines if not line.is_comment}

    @property
    def undecided(self) -> list[str]:
        """Keys without which the config cannot be used."""
        return [line.key for line in self.lines if line.is_open]


def propose(slug: str, facts: Facts, root: str) -> Proposal:
    """Proposes a config.

    Args:
        slug: Name of the competition, and of the run.
        facts: What its folder holds.
        root: `data.root`.
    """
    draft = Draft(KNOWN.get(slug))
    draft.add("name", slug, "the run's folder in runs/")
    draft.add("data.root", root)
    roles = find_roles(facts)
    shape = reshaped(facts, roles, draft.known) or of_mask_files(facts, roles)
    if shape is None:
        draft.leave_open("data.train", "train.csv", _why_nothing(facts))
        return Proposal(draft.lines, draft.notes)
    if _target_of(shape, roles, draft.known) is None:
        shape = replace(shape, target=with_mask_files(facts, shape))
    # A table of paths whose target cannot be told may repeat what the folders say.
    if shape.image is not None and shape.image.path.startswith("{") and not _target_of(shape, roles, draft.known):
        shape = by_folders(facts, roles) or shape
    if (found := _target_of(shape, roles, draft.known)) is not None and found.what == "labels":
        shape = with_flags(shape, found.columns)
    if found is not None:
        shape = _with_groups(shape, roles, found, draft.known)
    side, image = shape.made_of.side if isinstance(shape.made_of, Pixels) else 0, shape.image
    shown = look_at(facts.root, image.group) if image and not side else Shown(side, side, shape.train.num_rows)
    add_tables(draft, roles, shape, shown)
    ids = add_ids(draft, roles, shape)
    target = _add_target(draft, roles, shape, ids, shown)
    group = _group(draft, roles, shape, target, ids[0] if ids else "")
    used = [*ids, *(target.columns if target else []), *shape.used, *([group.column] if group else [])]
    _add_metadata(draft, find_metadata(shape.train, roles, used), shape, roles, target)
    tile = TILE if target is not None and tile_of(target, shown)[0] else 0
    draft.lines += size_lines(shown, shape.train.num_rows, tile)
    if target is not None:
        draft.lines += fold_lines(shape, target, group)
        draft.lines += model_lines(target, draft.known)
        draft.lines.append(metric_line(target, shape.train, facts, draft.known, slug, roles.sample))
        for key, value in target.submission.items():
            draft.add(f"submission.{key}", value, "the sample submission has other names for them")
        for key, value in (draft.known.submission if draft.known else {}).items():
            draft.add(
                f"submission.{key}", value, f"as the competition says ({draft.known.source if draft.known else ''})"
            )
    draft.notes += shape.notes
    draft.notes += draft.known.notes if draft.known and draft.known.features else ()
    return Proposal(draft.lines, draft.notes, target, group)


def _why_nothing(facts: Facts) -> str:
    """Why there are no training rows."""
    if not facts.listing.groups:
        packed = f"; unpack {', '.join(facts.listing.archives[:3])}" if facts.listing.archives else ""
        return f"no images were found{packed}"
    if not facts.tables:
        return "there is no table, and neither folders nor the names of files hold a class"
    return "no table has cells of which the images' names are made, and neither folders nor names of files hold a class"


def _target_of(shape: Reshaped, roles: Roles, known: Known | None) -> Target | None:
    """The target of training rows; None where it cannot be told."""
    if shape.target is not None:
        return shape.target
    id, _ = id_of(shape, roles)
    return find_target(shape.train, roles, [*shape.used, *([id] if id else [])], known)


def _with_groups(shape: Reshaped, roles: Roles, target: Target, known: Known | None) -> Reshaped:
    """The rows with a column of groups made of their ids, where no column says what belongs together."""
    id, _ = id_of(shape, roles)
    if id is None or shape.group or shape.has_split or (known and known.group):
        return shape
    image = shape.image.columns if shape.image else []
    found, _ = find_group(shape.train, roles, target, id, image)
    return shape if found else with_starts(shape, id, target)


def _add_target(draft: Draft, roles: Roles, shape: Reshaped, ids: list[str], shown: Shown) -> Target | None:
    """The target and its kind."""
    used = [*ids, *shape.used]
    target = shape.target or find_target(shape.train, roles, used, draft.known)
    if target is None:
        shared = roles.test.columns if roles.test else {}
        free = [name for name in shape.train.columns if name not in used and name not in shared]
        missing = "which of these is the target? Set data.target_kind, model.head and model.metrics with it"
        if len(free) > 1 and (masks := [name for name in free if shape.train.columns[name].are_run_lengths]):
            missing = (
                f"a row holds one mask, in {masks[0]}, and another column says which: make a column for each with "
                f"{{pivot: {{index: IMAGE, columns: CLASS, values: {masks[0]}}}}}, and add the images without a mask"
            )
        draft.leave_open("data.target", free[:SEVERAL] or ["target"], missing)
        return None
    draft.add("data.target", target.columns if len(target.columns) > 1 else target.columns[0], target.why_columns)
    if target.others:
        draft.lines[-1] = replace(
            draft.lines[-1], others=(f"other columns that may be it: {some(list(target.others))}",)
        )
        draft.notes.append(f"data.target: '{target.columns[0]}' by its name; it may be {some(list(target.others))}")
    if target.what == "masks":
        target = _add_masks(draft, shape, target, shown)
    else:
        draft.add("data.target_kind", KINDS[target.what], target.why)
    if target.delimiter:
        draft.add("data.columns.label_delimiter", target.delimiter, "between the labels of a cell")
    _add_blanks(draft, shape, target)
    return target


def _add_masks(draft: Draft, shape: Reshaped, target: Target, shown: Shown) -> Target:
    """The kind of masks: where they are, what a pixel may be, tiles."""
    weighed = list(target.weighed)
    if len(target.columns) > 1 and not target.masks:
        found, why = exclusive(shape.train, target.columns)
        target = replace(target, masks=found)
        weighed.append(why)
    tile, why = tile_of(target, shown)
    arguments = {**target.masks, **({"tile": tile} if tile else {})}
    kind = {"class_path": "swinft.Segmentation", "init_args": arguments} if arguments else KINDS["masks"]
    draft.add("data.target_kind", kind, target.why, *weighed, why)
    return target


def _add_blanks(draft: Draft, shape: Reshaped, target: Target) -> None:
    """What is done about rows without a target."""
    if target.what in ("label_sets", "masks"):
        return
    columns = [shape.train.columns[name].cells for name in target.columns]
    rows = [[cell.casefold() in MISSING_WORDS for cell in row] for row in zip(*columns, strict=True)]
    count, partly = sum(any(row) for row in rows), any(any(row) and not all(row) for row in rows)
    if count:
        why = f"{count:,} rows lack {'some of these' if partly else 'the target'}"
        draft.add("data.columns.on_missing_target", "mask" if partly else "skip", why)


def _group(draft: Draft, roles: Roles, shape: Reshaped, target: Target | None, id: str) -> Group | None:
    """The groups of the folds."""
    known = draft.known
    if target is None or shape.has_split:
        return None
    if shape.group is not None:
        return Group(*shape.group)
    image = shape.image.columns if shape.image else []
    group, weighed = find_group(shape.train, roles, target, id, image)
    if known and known.group in shape.train.columns:
        assert known.group is not None
        others = (group.why,) if group and group.column != known.group else ()
        count = len(shape.train.columns[known.group].values)
        return Group(known.group, f"{known.why_group} ({count:,} values)", others)
    return replace(group, others=(*group.others, *weighed)) if group else None


def _add_metadata(draft: Draft, found: Metadata, shape: Reshaped, roles: Roles, target: Target | None) -> None:
    """Metadata columns; and those that only training rows have, which may tell the target."""
    if found.only_train:
        place = max(k for k, line in enumerate(draft.lines) if line.key in ("data.train", "data.target"))
        text = f"left out, because the rows to predict lack them: {some(found.only_train)}"
        draft.lines[place] = replace(draft.lines[place], others=(*draft.lines[place].others, text))
    categories = [*shape.categories, *found.categories]
    if not found.numbers and not categories:
        return
    are_masks = target is not None and target.what == "masks"
    uses = (draft.known is None or draft.known.features) and not are_masks
    add = draft.add if uses else draft.hint
    why = "metadata that the rows to predict have, too"
    why += (
        "; remove it to train on the images alone"
        if uses
        else "; masks are predicted from the image alone"
        if are_masks
        else f"; {', '.join(draft.known.notes if draft.known else ())}"
    )
    left = [f"not used: {name}, because {reason}" for name, reason in [*found.left_out.items()][:4]]
    every = [*shape.train.columns, *(roles.test.columns if roles.test else ())]
    for name, columns in {"numeric_features": found.numbers, "categorical_features": categories}.items():
        if columns:
            add(f"data.columns.{name}", patterns_of(columns, every), why, *left)
            why, left = "", []
    if uses and found.blanks:
        draft.add("data.columns.missing_features", "fill", f"some cells are empty in {some(found.blanks, 4)}")
