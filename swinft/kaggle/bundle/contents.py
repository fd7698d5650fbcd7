"""What a bundle holds of a run or an ensemble: all that predicts and submits, and no out-of-fold data and no images."""

import csv
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swinft.errors import InputError, command, listed
from swinft.inference.provenance import sha256
from swinft.run.config.secrets import mask
from swinft.run.config.yaml_text import yaml_text
from swinft.run.ensemble.predict import placed
from swinft.run.fold_files import FoldId
from swinft.run.layout import Run
from swinft.store import RECORDS, has_record, is_committed, verify

MANIFEST = "bundle.json"
# Of a run's files those that predict and submit need. Scores are no data of rows, and hold what rules have learned.
KEPT = ("config", "schema", "folds", "inputs", "sample", "environment", "devices", "choice", "scores", "ensemble")
CODE = "code"  # folder of the user's modules


@dataclass(frozen=True)
class Item:
    """A file of a bundle.

    Args:
        path: Its path in the folder that is made of the bundle: `NAME/fold_0/weights.safetensors`.
        source: The file here.
        content: Its content, if it is not that of `source`.
        producer: What its commit record says; None for a file without a record.
    """

    path: str
    source: Path
    content: bytes | None = None
    producer: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return sha256(self.content if self.content is not None else self.source.read_bytes())

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.content) if self.content is not None else self.source.stat().st_size


@dataclass(frozen=True)
class Part:
    """A run of a bundle.

    Args:
        name: Its folder.
        run: The run here.
        items: Its files.
    """

    name: str
    run: Run
    items: list[Item]


def parts_of(runs: Sequence[Run], folds: Sequence[FoldId] | None = None) -> list[Part]:
    """The runs of a bundle in the order in which they predict: the members of an ensemble come before it.

    Args:
        runs: Runs and ensembles.
        folds: The folds of every run that predict; None for those that score rows.

    Raises:
        InputError: A run is not finished, or a member of an ensemble is no run.
        StoreError: A file has changed since it was written.
    """
    found: dict[Path, Part] = {}
    for run in runs:
        _add(run, folds, found)
    return list(found.values())


def _add(run: Run, folds: Sequence[FoldId] | None, found: dict[Path, Part]) -> Part:
    place = run.root.resolve()
    if place in found:
        return found[place]
    if run.is_embedding:
        raise InputError(f"{run.root} is fitted on embeddings, which a bundle does not hold yet: bundle runs.")
    members = _members(run, folds, found) if run.is_ensemble else {}
    taken = {part.name for part in found.values()}
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", place.name).strip(".-") or "run"
    name = next(each for each in [plain, *(f"{plain}-{k}" for k in range(2, len(taken) + 3))] if each not in taken)
    files = [getattr(run, kind) for kind in KEPT]
    if run.is_ensemble:
        files.remove(run.environment)
    else:
        for fold in run.finished_folds(folds):
            files += [run.fold(fold).weights, run.fold(fold).result]
    items = [_item(run, name, path) for path in files if has_record(path)]
    missing = [path.name for path in (run.config, run.schema) if not is_committed(path)]
    if missing:
        raise InputError(f"{run.root} lacks {listed(missing)}, or its commit record: copy the run with hidden files.")
    changed = {
        run.ensemble: lambda: _beside(run, members),
        run.config: lambda: _without_paths(run),
        run.folds: lambda: _numbers_of_folds(run),
    }
    items = [replace(item, content=changed[item.source]()) if item.source in changed else item for item in items]
    found[place] = Part(name, run, items)
    return found[place]


def _members(run: Run, folds: Sequence[FoldId] | None, found: dict[Path, Part]) -> dict[str, str]:
    """Adds the members of an ensemble; the name of each one's folder by its own.

    Raises:
        InputError: One is a table, which predicts no other rows.
    """
    specs = [placed(member, run) for member in run.read_ensemble()["members"]]
    if tables := [spec.name for spec in specs if spec.run is None]:
        raise InputError(
            f"{run.root}: {listed(tables)}: tables of another program, which predict no hidden rows. Make an ensemble "
            f"of runs alone: `{command('ensemble')}`."
        )
    return {spec.name: _add(Run.open(spec.run), folds, found).name for spec in specs if spec.run is not None}


def _item(run: Run, name: str, path: Path) -> Item:
    record = json.loads((path.parent / RECORDS / f"{path.name}.json").read_bytes())
    return Item(f"{name}/{path.relative_to(run.root).as_posix()}", verify(path), None, str(record["producer"]))


def _without_paths(run: Run) -> bytes:
    """A config without the folders of this machine; secrets that somebody has written into it are masked."""
    config = run.read_config()
    config["runs"], config["data"]["root"] = "runs", "."
    config["data"]["loading"]["cache_dir"] = None
    return mask(yaml_text(config)).encode()


def _numbers_of_folds(run: Run) -> bytes:
    """A folds.csv that says which folds there are, and no row's."""
    with run.folds.open(encoding="utf-8", newline="") as file:
        folds = sorted({int(row["fold"]) for row in csv.DictReader(file)})
    return "".join(["id,fold\n", *(f"row of fold {fold},{fold}\n" for fold in folds)]).encode()


def _beside(run: Run, members: dict[str, str]) -> bytes:
    """An ensemble's recipe with its members beside it, and without the hashes of tables that stay here."""
    recipe = run.read_ensemble()
    moved = [{"name": each["name"], "run": f"../{members[each['name']]}", "files": {}} for each in recipe["members"]]
    return json.dumps({**recipe, "members": moved}).encode()


def code_of(modules: Sequence[str]) -> list[Item]:
    """The files of the user's modules or packages.

    Raises:
        InputError: A module is not found, or is not written in Python.
    """
    items = []
    for name in modules:
        spec = importlib.util.find_spec(name.partition(".")[0])
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin is None or origin.suffix != ".py":
            raise InputError(f"--allow-code {name}: there is no module of this name, written in Python, to copy.")
        root = origin.parent.parent if origin.name == "__init__.py" else origin.parent
        files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
        items += [Item(f"{CODE}/{file.relative_to(root).as_posix()}", file) for file in files]
    return list({item.path: item for item in items}.values())


def flat_names(items: Sequence[Item]) -> list[str]:
    """Names of the files in one folder: uploads skip or archive folders, and hidden files may be lost."""
    names: list[str] = []
    for item in items:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", item.path.replace("/", "--"))
        while plain in names or plain in (MANIFEST, "dataset-metadata.json"):
            plain = f"_{plain}"
        names.append(plain)
    return names
