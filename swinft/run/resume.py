"""Whether a run can go on: what may differ from its start, what may not, and what is made again."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from swinft.errors import InputError, StoreError
from swinft.run.accept import accept_files
from swinft.run.compute.choices import choice_again, choice_here, freeze_choice, read_choice
from swinft.run.compute.devices import check_devices, devices_per_fold, freeze_devices
from swinft.run.config.old_keys import migrated
from swinft.run.config.sections import read_frozen
from swinft.run.environment import describe_environment, note_of_resume
from swinft.run.experiment import Experiment
from swinft.run.inputs import check_inputs
from swinft.run.layout import Run
from swinft.store import commit, is_unrecorded, verify
from swinft.system.orphans import is_child

# Keys, and sections, that cannot change what a fold learns and predicts. All others are part of the result.
FREE = (
    # where things lie
    "name",
    "runs",
    "data.root",
    "data.loading.cache",
    "data.loading.cache_dir",
    "data.loading.download",
    # how the work is done and shown
    "data.loading.num_workers",
    "trainer.logger",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.detect_anomaly",
    # how long it may take: what a fold leaves out is said, and one that has ended stays as it is
    "max_hours",
    # what is decided on predictions, after the fit
    "submission",
)
ABSENT = "not there"


def check_resume(run: Run, experiment: Experiment) -> None:
    """Compares a run with what is asked for, makes lost files again, and keeps what is free to differ.

    Args:
        run: The run.
        experiment: What is asked for. A process that fits a single fold changes nothing that others read.

    Raises:
        InputError: The run would go on as another one.
        StoreError: A file is missing or damaged and cannot be made again.
    """
    config = experiment.config
    Run.open(run.root)
    if config.accept:
        accept_files(run)
    has_changed = _check_config(run, experiment)
    check_inputs(run, config)
    if config.fold is None:
        _make_again(run, experiment)
        if has_changed:
            commit(run.config, experiment.dump().encode(), "swinft fit")  # what the folds are going to read
    # A parent says it for its folds.
    if not is_child() and (note := note_of_resume(run, choice_here(run, config).applied(config))):
        print(note)
    check_devices(run, config)


def _check_config(run: Run, experiment: Experiment) -> bool:
    """Compares values, not text, key by key; says which differ and are free to.

    Returns:
        Whether the run's config must be written again.

    Raises:
        InputError: A key differs that can change a result.
    """
    text = verify(run.config).read_text(encoding="utf-8")
    before = experiment.with_config(read_frozen(experiment.parser, run.config, experiment.config.allow_code))
    # Read by this version, which adds the keys that it has learnt since, with their defaults.
    frozen = dict(_flat(yaml.safe_load(before.dump())))
    wanted = dict(_flat(yaml.safe_load(experiment.dump())))
    keys = [key for key in {**frozen, **wanted} if frozen.get(key, ABSENT) != wanted.get(key, ABSENT)]
    lines = {key: f"{key}: was {frozen.get(key, ABSENT)!r}, is {wanted.get(key, ABSENT)!r}" for key in keys}
    refused = [line for key, line in lines.items() if not _is_free(key)]
    if refused:
        title = f"{run.root} was started with another config; resuming would mix the two."
        fix = "Undo the change, or give the new run another --name."
        raise InputError("\n  ".join([title, *refused, fix]))
    # A run that was moved is not worth a word: it is where the user says it is.
    said = [line for key, line in lines.items() if key not in ("name", "runs")]
    if said:
        print(f"not as at the start, which changes no result: {'; '.join(said)}")
    if added := sorted(set(frozen) - set(dict(_flat(yaml.safe_load(migrated(text)))))):
        print(f"keys that this version has and the run's did not, at their defaults: {', '.join(added)}")
    return bool(keys or added or migrated(text) != text)


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; lists are values, and so is an empty section."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}".lstrip("."))
    else:
        yield prefix, node


def _make_again(run: Run, experiment: Experiment) -> None:
    """Makes the files again that follow from others, where they are lost or damaged.

    Raises:
        StoreError: The schema has no record and is not what the tables give.
    """
    config = experiment.config
    if _is_bad(run, "schema"):
        data = experiment.datamodule(run)
        data.splits.known_schema = None
        data.setup("fit")
        content = json.dumps(data.schema.to_dict(), indent=1).encode()
        if is_unrecorded(run.schema) and run.schema.read_bytes() != content:
            verify(run.schema)  # says what is wrong
        commit(run.schema, content, "swinft fit")
    if _is_bad(run, "choice"):
        freeze_choice(run, choice_again(run, config))
    if _is_bad(run, "environment"):
        environment = describe_environment(config) | read_choice(run).described()
        commit(run.environment, json.dumps(environment, indent=1).encode(), "swinft fit")
    if _is_bad(run, "devices"):
        freeze_devices(run, devices_per_fold(config, len(run.planned_folds())))


def _is_bad(run: Run, name: str) -> bool:
    """Whether an artefact is not what was committed; said, since it is going to be made again."""
    try:
        verify(getattr(run, name))
    except StoreError as error:
        print(f"made again: {error}")
        return True
    return False
