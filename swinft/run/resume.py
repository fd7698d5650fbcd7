"""Whether a run can be resumed: which settings may differ from its start, and which lost files are made again."""

import json
from collections.abc import Iterator
from typing import Any

from swinft.errors import InputError, StoreError
from swinft.run.compute.choices import choice_here, freeze_choice, read_choice, remade_choice
from swinft.run.compute.devices import check_devices, devices_per_fold, freeze_devices
from swinft.run.config.old_keys import migrated
from swinft.run.config.sections import read_frozen
from swinft.run.config.yaml_text import read_own_yaml
from swinft.run.environment import describe_environment, note_of_resume
from swinft.run.experiment import Experiment
from swinft.run.inputs import check_inputs
from swinft.run.layout import Run
from swinft.run.missing_records import write_missing_records
from swinft.store import commit, is_unrecorded, verify
from swinft.system.orphans import is_child

# Keys and sections that do not change a fold's weights and predictions. All others are part of the result.
CHANGEABLE = (
    # paths
    "name",
    "runs",
    "data.root",
    "data.loading.cache",
    "data.loading.cache_dir",
    "data.loading.download",
    # loading, logging and debugging
    "data.loading.num_workers",
    "trainer.logger",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.detect_anomaly",
    # time limit: a fold that it ends early reports this, and finished folds do not change
    "max_hours",
    # trained after the folds, from which it only takes the number of its epochs
    "data.folds.all",
    # applied to predictions, after the fit
    "submission",
)
ABSENT = "missing"


def check_resume(run: Run, experiment: Experiment) -> None:
    """Compares a run with the requested config, makes lost files again, and stores changed keys that may differ.

    Args:
        run: The run.
        experiment: The requested experiment. A process that fits a single fold changes no files that others read.

    Raises:
        InputError: The requested run differs in a way that changes results.
        StoreError: A file is missing or damaged and cannot be made again.
    """
    config = experiment.config
    Run.open(run.root).check_trained()
    if config.accept:
        write_missing_records(run)
    has_changed = _check_config(run, experiment)
    check_inputs(run, config)
    if config.fold is None:
        _remake_lost_files(run, experiment)
        if has_changed:
            commit(run.config, experiment.dump().encode(), "swinft fit")  # the folds' processes read it
    # Printed once, by the parent process.
    if not is_child() and (note := note_of_resume(run, choice_here(run, config).applied(config))):
        print(note)
    check_devices(run, config)


def _check_config(run: Run, experiment: Experiment) -> bool:
    """Compares values, not text, key by key; prints those that differ and may do so.

    Returns:
        Whether the run's config must be written again.

    Raises:
        InputError: A key differs that can change results.
    """
    text = verify(run.config).read_text(encoding="utf-8")
    before = experiment.with_config(read_frozen(experiment.parser, run.config, experiment.config.allow_code))
    # The parser of this version adds new keys with their defaults.
    frozen = dict(flat_keys(read_own_yaml(before.dump())))
    wanted = dict(flat_keys(read_own_yaml(experiment.dump())))
    keys = [key for key in {**frozen, **wanted} if frozen.get(key, ABSENT) != wanted.get(key, ABSENT)]
    lines = {key: f"{key}: was {frozen.get(key, ABSENT)!r}, is {wanted.get(key, ABSENT)!r}" for key in keys}
    refused = [line for key, line in lines.items() if not may_change(key)]
    if refused:
        title = f"{run.root} was started with another config; resuming would mix the two."
        fix = "Undo the change, or give the new run another --name."
        raise InputError("\n  ".join([title, *refused, fix]))
    # That a run was moved is not printed: the user knows its path.
    changed = [line for key, line in lines.items() if key not in ("name", "runs")]
    if changed:
        print(f"changed since the start, without an effect on results: {'; '.join(changed)}")
    if added := sorted(set(frozen) - set(dict(flat_keys(read_own_yaml(migrated(text)))))):
        print(f"keys that are new in this version, set to their defaults: {', '.join(added)}")
    return bool(keys or added or migrated(text) != text)


def may_change(key: str) -> bool:
    """Whether a key may differ from a run's start: it does not change weights and predictions."""
    return any(key == each or key.startswith(f"{each}.") for each in CHANGEABLE)


def flat_keys(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; lists and empty sections are values."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flat_keys(value, f"{prefix}.{key}".lstrip("."))
    else:
        yield prefix, node


def _remake_lost_files(run: Run, experiment: Experiment) -> None:
    """Makes lost or damaged files again if they can be derived from others.

    Raises:
        StoreError: The schema has no record and does not match the tables.
    """
    config = experiment.config
    if _is_lost(run, "schema"):
        data = experiment.datamodule(run)
        data.splits.known_schema = None
        data.setup("fit")
        content = json.dumps(data.schema.to_dict(), indent=1).encode()
        if is_unrecorded(run.schema) and run.schema.read_bytes() != content:
            verify(run.schema)  # raises the error
        commit(run.schema, content, "swinft fit")
    if _is_lost(run, "choice"):
        freeze_choice(run, remade_choice(run, config))
    if _is_lost(run, "environment"):
        environment = describe_environment(config) | read_choice(run).described()
        commit(run.environment, json.dumps(environment, indent=1).encode(), "swinft fit")
    if _is_lost(run, "devices"):
        freeze_devices(run, devices_per_fold(config, len(run.planned_folds())))


def _is_lost(run: Run, name: str) -> bool:
    """Whether an artefact is missing or damaged; printed, because the caller makes it again."""
    try:
        verify(getattr(run, name))
    except StoreError as error:
        print(f"made again: {error}")
        return True
    return False
