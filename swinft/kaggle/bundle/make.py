"""Makes a bundle: folders that are uploaded to Kaggle as two datasets and a notebook."""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from packaging.version import InvalidVersion, Version

from swinft.data.schema import Schema
from swinft.errors import InputError, number_of
from swinft.kaggle.bundle.contents import MANIFEST, Item, Part, code_of, flat_names, parts_of
from swinft.kaggle.bundle.extras import used_packages
from swinft.kaggle.bundle.metadata import SUFFIXES, check_owner, check_title, slug_of, write_dataset, write_kernel
from swinft.kaggle.bundle.notebook import NotebookText, write_notebook
from swinft.kaggle.bundle.opened import FORMAT, MAKER, open_bundle
from swinft.kaggle.bundle.wheels import (
    PYTHON,
    copy_wheels,
    describe,
    download_wheels,
    lacking,
    needed_packages,
    own_wheel,
    wheels_of,
    write_needed,
)
from swinft.kaggle.download import competition_of
from swinft.kaggle.slugs import competition_slug
from swinft.printing import print_line
from swinft.ranges import POSITIVE, check_ranges
from swinft.run.config.parser import options_from
from swinft.run.ensemble.boosting import Boosting, engine_of
from swinft.run.ensemble.methods import Rank
from swinft.run.layout import Run
from swinft.run.lock import hold, hold_if_writable
from swinft.run.prediction.loaded import RunPredictor
from swinft.run.prediction.options import PredictOptions
from swinft.run.python_inputs import plain, python_inputs
from swinft.store import json_bytes, probe, replace, sha256_of
from swinft.versions import VERSION
from swinft.whole_folders import new_folder, restore, unfinished

NOTEBOOK = "notebook.ipynb"


@dataclass(frozen=True)
class BundleOptions:
    """Options of a bundle.

    Args:
        output: Its folder; by default `bundles/SLUG`.
        owner: Your name on Kaggle, which owns datasets and notebook; with `upload` by default that of the credentials.
        title: Title of the notebook, from which slugs and the datasets' titles are made; by default `swinft NAME`.
        competition: Slug or address of the competition; by default that of `swinft download`'s folder in `data.root`.
        views: Test-time augmentations; by default those of each run's config.
        folds: Folds that predict; by default those that score rows; `all` for the training on every row.
        max_hours: Time budget of the notebook: fewer views, then fewer folds predict where it would not be kept.
        wheels: `download` for wheels of all packages that swinft needs besides torch, in their versions here, of which
            the notebook installs those that Kaggle's image lacks; `skip` for swinft's own wheel alone; or a folder.
        python: Python of Kaggle's image, for which wheels are downloaded.
        packages: Further packages that the notebook installs.
        only_in_rerun: The saved version of the notebook writes the sample submission, and only the rerun on the hidden
            rows predicts.
        server: For competitions that ask row by row: module and class of their server in `kaggle_evaluation`, as
            `rsna_inference_server.RSNAInferenceServer`.
        upload: Upload all of it, as private datasets and a private notebook.
        overwrite: Replace the folder of an earlier bundle.
        allow_code: Modules of your own whose classes the run's config names; they are put in the bundle.

    Raises:
        InputError: A value is out of its range.
    """

    output: str | None = None
    owner: str | None = None
    title: str | None = None
    competition: str | None = None
    views: list[str] | None = None
    folds: list[int | str] | None = None
    max_hours: float | None = None
    wheels: str = "download"
    python: str = PYTHON
    packages: list[str] | None = None
    only_in_rerun: bool = False
    server: str | None = None
    upload: bool = False
    overwrite: bool = False
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        check_ranges("", {"--max-hours": self.max_hours}, {"--max-hours": POSITIVE})
        try:
            Version(self.python)
        except InvalidVersion:
            raise InputError(
                f"--python {self.python}: not a version of Python. Give 3.12, or that of the image."
            ) from None
        if self.server and (self.max_hours is not None or self.only_in_rerun):
            raise InputError("--max-hours and --only-in-rerun are for a table of rows: a --server is asked row by row.")


@dataclass(frozen=True)
class Names:
    """Names of a bundle on Kaggle.

    Args:
        owner: The user's name.
        title: Title of the notebook.
        competition: Slug of the competition.
    """

    owner: str
    title: str
    competition: str

    def title_of(self, kind: str) -> str:
        """Title of a dataset."""
        return f"{self.title} {kind}"


def bundle(runs: str | Path | Sequence[str | Path], **options: Any) -> Path:
    """Makes a bundle; does and prints the same as `swinft bundle`.

    Args:
        runs: The folder of a run or an ensemble, or several.
        options: As those of `swinft bundle`: `owner`, `competition`, `output`, `title`, `max_hours` and others.

    Returns:
        The folder of the bundle.

    Raises:
        InputError: A run is not finished, a name is wrong, or the folder exists.
        RunError: Wheels cannot be downloaded, or an upload failed.
    """
    with python_inputs():
        folders = [runs] if isinstance(runs, str | PurePath) else list(runs)
        return make_bundle(list(map(str, folders)), options_from(BundleOptions, plain(options)))


def make_bundle(folders: Sequence[str], options: BundleOptions) -> Path:
    """Makes a bundle of runs, checks that it loads, and prints what to do with it.

    Args:
        folders: Runs or ensembles; the mean of their predictions is submitted where they are several.
        options: Its options.

    Returns:
        Its folder.

    Raises:
        InputError: A run is not finished, a name is wrong, or the folder exists.
        RunError: Wheels cannot be downloaded, or an upload failed.
    """
    runs = [Run.open(folder) for folder in folders]
    names = _names(runs, options)
    folder = Run.at(Path(options.output or Path("bundles") / slug_of(names.title))).root
    modules = options.allow_code or []
    if options.server:
        _check_served(runs)
    if len(runs) > 1 and any(Schema.from_dict(run.read_schema()).base.are_maps for run in runs):
        raise InputError("masks of several runs have no mean: make a bundle of one run.")
    if options.packages:
        needed_packages(options.packages, options.python)  # what is wrong with them is said at once
    if options.wheels not in ("download", "skip"):
        wheels_of(Path(options.wheels))
    advice = "Choose another folder with --output."
    probe(folder.parent, what="the bundle", advice=advice)
    with ExitStack() as stack:
        stack.enter_context(hold(Run(folder).lock, advice=f"Wait for it. {advice}", root=unfinished(folder)))
        _check_output(folder, options.overwrite)
        for root in dict.fromkeys(run.lock for run in runs):  # until their files are copied
            stack.enter_context(hold_if_writable(root))
        parts = parts_of(runs, options.folds)
        submits = [part.name for run in runs for part in parts if part.run.root.resolve() == run.root.resolve()]
        new = stack.enter_context(new_folder(folder, "the bundle", advice))
        items = [item for part in parts for item in part.items] + code_of(modules)
        about: dict[str, Any] = {"runs": [part.name for part in parts], "submits": submits, "modules": modules}
        about |= {"views": options.views, "folds": options.folds}
        packages = _write_weights(new / SUFFIXES[0], items, about)
        packages = list(dict.fromkeys([*packages, *(options.packages or [])]))
        described = _write_wheels(new / SUFFIXES[1], packages, options)
        _write_metadata(new, names, parts, options)
    size = sum(item.size for item in items)
    print_line(
        f"{folder / SUFFIXES[0]}: {number_of(len(parts), 'run')}, {number_of(len(items), 'file')}, {size / 1e6:.0f} MB"
    )
    print_line(f"{folder / SUFFIXES[1]}: {described}")
    if options.upload:
        from swinft.kaggle.bundle.upload import upload  # Kaggle's client is an extra

        upload(folder, names.owner, names.title, runs[0].root)
    else:
        for kind in SUFFIXES:
            print_line(f"upload: kaggle datasets create -p {folder / kind}")
        print_line(f"then, once both datasets are ready: kaggle kernels push -p {folder / 'kernel'}")
    return folder


def _check_served(runs: Sequence[Run]) -> None:
    """Checks that a server can answer with the runs.

    Raises:
        InputError: They are several, or an ensemble that compares rows.
    """
    if len(runs) > 1:
        raise InputError("a --server answers with one run: make an ensemble of them with `swinft ensemble`.")
    if runs[0].is_ensemble and runs[0].read_ensemble()["method"] == Rank.name:
        raise InputError(f"{runs[0].root} compares the ranks of rows, and a --server has one row at a time.")


def _names(runs: Sequence[Run], options: BundleOptions) -> Names:
    """The names on Kaggle, checked.

    Raises:
        InputError: One is missing or wrong.
    """
    if len({run.root.resolve() for run in runs}) < len(runs):
        raise InputError("a run is given twice: give each once.")
    title = options.title or f"swinft {runs[0].root.resolve().name}"
    check_title(title)
    owner = options.owner or ""
    if options.upload and not owner:
        from swinft.kaggle.client import Client

        owner = Client().user
    check_owner(owner)
    root = str(runs[0].read_config()["data"]["root"])
    known = options.competition or competition_of(root)
    if known is None:
        raise InputError(
            "--competition is missing: the notebook reads the competition's data. Give its slug, as in "
            "https://www.kaggle.com/competitions/SLUG."
        )
    return Names(owner, title, competition_slug(known))


def _check_output(folder: Path, overwrite: bool) -> None:
    """Checks that the folder does not exist yet, or is a bundle that may be replaced.

    Raises:
        InputError: It exists and may not be replaced.
    """
    restore(folder)
    if folder.exists():
        if not overwrite:
            raise InputError(f"{folder} exists. --overwrite replaces an earlier bundle, --output names another folder.")
        if not (folder / SUFFIXES[0] / MANIFEST).is_file():
            raise InputError(f"{folder} is no bundle: --overwrite replaces only those. Name another with --output.")


def _write_weights(folder: Path, items: Sequence[Item], content: dict[str, Any]) -> list[str]:
    """Writes the dataset of the runs, and loads every network from it; returns packages that it needs."""
    folder.mkdir()
    names = flat_names(items)
    for item, name in zip(items, names, strict=True):
        if item.content is None:
            shutil.copyfile(item.source, folder / name)
        else:
            replace(folder / name, item.content)
    files = [
        {
            "name": name,
            "path": item.path,
            "size": (folder / name).stat().st_size,
            "sha256": sha256_of(folder / name),
            "producer": item.producer,
        }
        for item, name in zip(items, names, strict=True)
    ]
    about: dict[str, Any] = {"format": FORMAT, "made_by": MAKER, "swinft": VERSION}
    replace(folder / MANIFEST, json_bytes({**about, **content, "files": files}))
    return _load_all(folder)


def _load_all(folder: Path) -> list[str]:
    """Loads every network of a bundle on the CPU, one at a time; returns the packages of extras that they need."""
    with tempfile.TemporaryDirectory(prefix="swinft-") as work:
        opened = open_bundle(folder, Path(work) / "runs")
        configs = []
        for name in opened.runs:
            run = opened.run(name)
            configs.append(run.read_config())
            given: dict[str, Any] = {"views": opened.views, "allow_code": opened.modules or None}
            for fold in [] if run.is_ensemble else run.finished_folds(opened.folds):
                RunPredictor(run, PredictOptions(folds=[fold], device="cpu", precision="32-true", **given))
        recipes = [opened.run(name).read_ensemble() for name in opened.runs if opened.run(name).is_ensemble]
        methods = [engine_of(each["fitted"]) if each["method"] == Boosting.name else each["method"] for each in recipes]
    print_line(f"every network of {number_of(len(opened.runs), 'run')} was loaded from the bundle")
    return used_packages(configs, methods)


def _write_wheels(folder: Path, packages: list[str], options: BundleOptions) -> str:
    """Writes the dataset of wheels; describes it."""
    folder.mkdir()
    own = own_wheel(folder)
    needed = needed_packages(packages, options.python)
    write_needed(folder, needed)
    if options.wheels == "skip":
        return f"{own.name} alone: the notebook needs an image with all other packages"
    if options.wheels == "download":
        files = download_wheels(folder, needed, options.python)
    else:
        files = [own, *copy_wheels(Path(options.wheels), folder)]
    if missing := lacking(files, needed):
        print_line(f"  no wheel of {', '.join(missing)}: the notebook needs an image that has them")
    return describe(files)


def _write_metadata(folder: Path, names: Names, parts: Sequence[Part], options: BundleOptions) -> None:
    """Writes the metadata of both datasets, and the notebook."""
    subtitles = {
        SUFFIXES[0]: f"Networks and settings of swinft for {names.competition}"[:80],
        SUFFIXES[1]: "swinft and the Python packages that it needs",
    }
    datasets = [
        write_dataset(folder / kind, names.owner, names.title_of(kind), subtitle, "other")
        for kind, subtitle in subtitles.items()
    ]
    kernel = folder / "kernel"
    kernel.mkdir()
    config = parts[-1].run.read_config()["data"]
    of_weights, of_wheels = (slug_of(names.title_of(kind)) for kind in SUFFIXES)
    text = NotebookText(
        names.title,
        names.competition,
        names.owner,
        of_weights,
        of_wheels,
        max_hours=options.max_hours,
        only_in_rerun=options.only_in_rerun,
        server=options.server,
        id_column=config["columns"]["test_id"] or config["id"],
    )
    write_notebook(kernel / NOTEBOOK, text)
    write_kernel(kernel, names.owner, names.title, NOTEBOOK, datasets, names.competition)
