"""Makes embeddings: a file per network for the training rows, and one for the rows to predict.

Shapes: N rows, D dimensions, G networks.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.data.loading.workers import Destination, explain_worker_crash
from swinft.data.schema import Schema
from swinft.errors import InputError, command, number_of
from swinft.inference.finite import Origin
from swinft.inference.maps import Maps
from swinft.inference.predictor import predict_rows, print_work
from swinft.inference.tta import check_views
from swinft.printing import print_line
from swinft.run.compute.out_of_memory import explain_in_prediction, out_of_memory_explained
from swinft.run.embed.files import Table, folder_name, is_same_source, read_about, read_table, write_table
from swinft.run.embed.makers import Maker, SideBySide, check_embeddable
from swinft.run.embed.options import EmbedOptions
from swinft.run.inputs import check_inputs
from swinft.run.layout import Run
from swinft.store import digest, probe, sweep, verify
from swinft.system.allocator import keep_freed_memory

TRAIN, TEST = "train", "test"
GROUP_BYTES = 2**31  # of float32 embeddings in memory: more networks than fit are made in further passes
Values = NDArray[np.float32]


def folder_of(maker: Maker) -> Path:
    """The folder of embeddings, in that of the run."""
    return maker.run.root / "embeddings" / folder_name(maker.label, [view.name for view in maker.views])


def path_of(maker: Maker, name: str, rows: str) -> Path:
    """The file of a network's embeddings of the training rows (`train`) or the rows to predict (`test`)."""
    return folder_of(maker) / f"{name}.{rows}.parquet"


def make_embeddings(run: Run, options: EmbedOptions) -> Maker:
    """Makes the embeddings that are not there yet, or are out of date, and prints what was made.

    Raises:
        InputError: A fold is not finished, the rows are wrong, or the run predicts masks.
    """
    maker = Maker.of(run, options)
    probe(folder_of(maker), what="embeddings", advice="Copy the run to a writable folder.")
    sweep(folder_of(maker))
    print_line(f"embeddings by {maker.describe()}")
    if options.rows in (TRAIN, "all"):
        make_train(maker)
    if options.rows in (TEST, "all"):
        if names_test(maker):
            make_test(maker)
        elif options.rows == TEST:
            raise InputError("there is nothing to predict: set data.test or data.sample_submission.")
    return maker


def names_test(maker: Maker) -> bool:
    """Whether the config names rows to predict."""
    config = maker.experiment.config.data
    return bool(config.test or config.sample_submission)


def training_data(maker: Maker, needs_images: bool = False) -> CSVDataModule:
    """The run's datamodule, set up with the training rows.

    Args:
        maker: What makes the embeddings.
        needs_images: Missing images are an error.

    Raises:
        InputError: The training table has changed since the run's start, or the run predicts masks.
    """
    config = maker.experiment.config.clone()
    config.data.root = maker.options.root or config.data.root
    check_inputs(maker.run, config, ("train",))
    changes = maker.data_changes
    if maker.options.rows == TRAIN:  # the rows to predict, and their images, need not be there
        changes |= {"test": None, "sample_submission": None}
    data = maker.experiment.datamodule(maker.run, needs_images, **changes)
    check_embeddable(data, maker.run)
    check_views(maker.views, *data.settings.shown_to_network)
    data.setup("fit")
    return data


def make_train(maker: Maker) -> CSVDataModule:
    """Makes the embeddings of the training rows; returns their datamodule."""
    run = maker.run
    of_rows = {"folds": digest(run.folds), "images": digest(run.images), "inputs": digest(run.inputs)}
    waiting = _waiting(maker, TRAIN, of_rows)
    data = training_data(maker, needs_images=bool(waiting))
    if waiting:
        data.check_unchanged(verify(run.images))
    for names in _groups(maker, waiting, len(data.splits.train.table)):
        found = np.flatnonzero(data.splits.train.is_used)
        rows, values = _embed(maker, names, data, found, is_train=True)
        for name, of_network in zip(names, np.split(values, len(names), 1), strict=True):
            _write_train(maker, name, data, rows, of_network, of_rows)
    return data


def _write_train(
    maker: Maker, name: str, data: CSVDataModule, rows: NDArray[np.int64], values: Values, of_rows: dict[str, str]
) -> None:
    """Writes a network's embeddings of the rows that it was trained on, and of those that its fold holds out."""
    splits, folds = data.splits, [fold for fold in maker.folds if name in maker.networks_of(fold)]
    trained = np.zeros(len(splits.train.table), dtype=bool)
    kept = np.zeros_like(trained)
    if maker.networks is None:
        kept[rows] = True
    else:
        trained[splits.trained_on(folds[0])] = True
        kept |= trained
        kept[splits.held_out(folds[0])] = True
    chosen = kept[rows]
    numbers = rows[chosen]
    ids = [splits.train.table.ids[row] for row in numbers.tolist()]
    about = {**maker.made_with(name), "rows": TRAIN, "of_rows": of_rows}
    table = Table(ids, values[chosen], splits.fold_of_row[numbers], trained[numbers], about)
    _write(path_of(maker, name, TRAIN), table)


def make_test(maker: Maker) -> None:
    """Makes the embeddings of the rows to predict, as the config names them."""
    data = data_to_predict(maker)
    of_rows = state_of(data)
    for names in _groups(maker, _waiting(maker, TEST, of_rows), len(data.test_table)):
        for name, (rows, values) in embed_test(maker, names, data).items():
            ids = [data.test_table.ids[row] for row in rows.tolist()]
            about = {**maker.made_with(name), "rows": TEST, "of_rows": of_rows}
            _write(path_of(maker, name, TEST), Table(ids, values, about=about))


def data_to_predict(maker: Maker, test: str | None = None) -> CSVDataModule:
    """A datamodule with the rows to predict.

    Args:
        maker: What makes the embeddings.
        test: A CSV of rows, as the option of `swinft predict`; None for those of the config.
    """
    changes = maker.data_changes | ({"test": str(Path(test).resolve())} if test else {})
    data = maker.experiment.datamodule(**changes)
    data.schema = Schema.from_dict(maker.run.read_schema())
    check_embeddable(data, maker.run)
    check_views(maker.views, *data.settings.shown_to_network)
    data.setup("predict")
    for note in data.notes:
        print_line(f"  {note}")
    return data


def state_of(data: CSVDataModule) -> dict[str, str]:
    """What the embeddings of the rows to predict depend on besides the networks: ids, metadata and image files."""
    found = hashlib.sha256()
    for id in data.test_table.ids:
        found.update(f"{len(id)}:{id}".encode(errors="surrogateescape"))
    features = data.splits.test.features
    found.update(b"" if features is None else features.tobytes())
    images = data.images_of("predict", range(len(data.test_table)))
    return {"rows": found.hexdigest(), "images": images.names_sha256, "files": _sha256(images.signatures)}


def embed_test(maker: Maker, names: Sequence[str], data: CSVDataModule) -> dict[str, tuple[NDArray[np.int64], Values]]:
    """Numbers and embeddings of the rows to predict, by network; rows without a usable image are skipped."""
    rows, values = _embed(maker, names, data, np.arange(len(data.test_table)), is_train=False)
    order = np.argsort(rows, kind="stable")
    return {name: (rows[order], part[order]) for name, part in zip(names, np.split(values, len(names), 1), strict=True)}


def _embed(
    maker: Maker, names: Sequence[str], data: CSVDataModule, rows: NDArray[np.int64], is_train: bool
) -> tuple[NDArray[np.int64], Values]:
    """Numbers and embeddings (N, G · D) of some rows, by networks side by side."""
    device = maker.device
    keep_freed_memory(device)
    data.destination = Destination(device, is_command=True)
    loader = data.ordered_loader("val" if is_train else "predict", rows, makes_cache=is_train)
    print(loader.plan)
    images = len(loader.sampler)  # type: ignore[arg-type]  # a sampler with a length
    needs = (data.batch_size, len(names), 1, device, maker.precision)
    with (
        out_of_memory_explained(lambda error: explain_in_prediction(error, *needs)),
        explain_worker_crash("", "", "--num-workers 0"),
    ):
        parts = maker.load(names, data, images, len(loader))
        print_work(parts, loader, maker.views, device, maker.precision)
        ids = data.train_table.ids if is_train else data.test_table.ids
        origin = Origin(ids, [Path(name) / "weights" for name in names], "Use --precision 32-true.")
        label = f"embed {'training rows' if is_train else 'rows to predict'}"
        found, values = predict_rows([SideBySide(parts)], loader, maker.views, device, maker.precision, origin, label)
    assert not isinstance(values, Maps)
    return found, values


def _waiting(maker: Maker, rows: str, of_rows: dict[str, str]) -> list[str]:
    """The networks whose embeddings of some rows are missing or out of date."""
    waiting = []
    for name in maker.weights:
        path, wanted = path_of(maker, name, rows), {**maker.made_with(name), "rows": rows, "of_rows": of_rows}
        found = read_about(path)
        if is_same_source(found, wanted):
            continue
        if found is not None:
            differs = [key for key in wanted if found.get(key) != wanted[key]]
            print_line(f"{path}: out of date ({', '.join(differs)}), made again")
        waiting.append(name)
    if there := len(maker.weights) - len(waiting):
        what = "the training rows" if rows == TRAIN else "the rows to predict"
        print_line(f"embeddings of {what} by {number_of(there, 'network')} are there already: {folder_of(maker)}")
    return waiting


def _groups(maker: Maker, names: list[str], num_rows: int) -> list[list[str]]:
    """Networks that are made in one pass over the rows."""
    if not names:
        return []
    width = maker.backbone.num_features if maker.backbone else 2048  # of networks more than most have
    many = max(1, GROUP_BYTES // max(1, num_rows * width * 4))
    return [names[start : start + many] for start in range(0, len(names), many)]


def _write(path: Path, table: Table) -> None:
    dtype, (num_rows, width) = write_table(path, table), table.values.shape
    largest = f"; the largest number is {np.abs(table.values).max(initial=0.0):.3g}" if dtype == "float32" else ""
    note = f", not float16, which would overflow or lose digits{largest}" if dtype == "float32" else ""
    print_line(f"{path}: {number_of(num_rows, 'row')} of {width} numbers in {dtype}{note}")


def current_table(maker: Maker, name: str, rows: str, of_rows: dict[str, str] | None = None) -> Table:
    """A network's embeddings, checked to be of the current weights and settings.

    Args:
        maker: What makes them.
        name: The network.
        rows: `train` or `test`.
        of_rows: Also the state of the rows, if it is known.

    Raises:
        InputError: They are missing, or out of date.
    """
    path = path_of(maker, name, rows)
    again = f"Run `{command('embed', maker.run.root, *maker.command_words)}` {'again' if path.is_file() else 'first'}."
    if not path.is_file():
        raise InputError(f"{path} is missing. {again}")
    table, wanted = read_table(path), {**maker.made_with(name), "rows": rows}
    wanted |= {} if of_rows is None else {"of_rows": of_rows}
    assert table.about is not None
    if differs := [key for key, value in wanted.items() if table.about.get(key) != value]:
        changed = "other weights" if "weights" in differs else f"another {', '.join(differs)}"
        raise InputError(f"{path} was made with {changed} than {maker.run.root} has now: it is out of date. {again}")
    return table


def _sha256(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
