"""W&B: a run of its own for each record, online or offline."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from swinft.errors import InputError
from swinft.extras import import_extra
from swinft.run.trackers.record import CaptionedImage, EpochValues, Record
from swinft.run.trackers.tracker import Tracker

PROJECT = "swinft"
OFFLINE = ("offline", "dryrun")
ANSWER_SECONDS = 10.0  # for the service to answer before a training
START_SECONDS, FINISH_SECONDS = 30.0, 60.0  # then the training goes on without it
OFFLINE_FIX = "Set WANDB_MODE=offline to write the records to the run's folder, and send them later with `wandb sync`"


class WandbTracker(Tracker):
    """Sends records to W&B, or writes them to `wandb/` in the run's folder where the mode is offline.

    Args:
        project: The project; null for the one that WANDB_PROJECT or `wandb init` names, or else `swinft`.
        entity: The team or user; null for the default one.
        tags: Tags of every record.
        mode: `online` or `offline`; null for that of WANDB_MODE or `wandb offline`, or else online.
        images: As in `Tracker`.
    """

    word = "wandb"

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        tags: list[str] | None = None,
        mode: Literal["online", "offline"] | None = None,
        images: int = 8,
    ) -> None:
        super().__init__(images)
        self.project, self.entity, self.tags, self.mode = project, entity, tags, mode
        self._run: Any = None
        self._is_offline = False
        self._stepped = set[str]()  # names of what callbacks log, which have the optimiser step as x axis

    def check(self) -> None:
        """Checks package, login and connection; in offline mode the package alone.

        Raises:
            InputError: There is no login, or the server does not answer.
        """
        settings = _settings()
        mode = self._mode(settings)
        if mode in OFFLINE or mode == "disabled":
            return
        key = settings.api_key or _key_of_netrc(settings.base_url)
        if not key and settings.identity_token_file:
            return
        if not key:
            raise InputError(
                f"trainer.logger: wandb is not logged in to {settings.base_url}. Run `wandb login`, or set "
                f"WANDB_API_KEY. {OFFLINE_FIX}."
            )
        _check_answer(settings.base_url, key)

    def start(self, record: Record) -> None:
        """Starts or continues the run with the record's id."""
        wandb = _wandb()
        settings = _settings()
        mode = self._mode(settings)
        self._is_offline = mode in OFFLINE
        self.close()
        own = wandb.Settings(
            silent=True,
            console="off",  # the fold's log.txt has its output
            disable_git=True,
            disable_code=True,
            x_save_requirements=False,  # the run's environment.json has the versions
            init_timeout=START_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
        )
        self._run = wandb.init(
            project=self.project or settings.project or PROJECT,
            entity=self.entity,
            group=record.group,
            name=record.name,
            id=record.id,
            job_type="pooled" if record.is_pooled else "fold",
            tags=self.tags,
            dir=str(record.folder),
            mode=mode,
            resume="allow",
            reinit="create_new",  # a run of the program that calls swinft goes on
            config=dict(record.config),
            settings=own,
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        self._stepped.clear()
        if self._is_offline:
            self._delete_earlier(record)

    def last_epoch(self) -> int:
        """The last epoch that the service has. Files of the offline mode are written again from the first one."""
        if self._is_offline or not self._run.resumed:
            return 0
        return int(self._run.summary.get("epoch") or 0)

    def write(self, epoch: EpochValues) -> None:
        """Sends an epoch as one entry of the history."""
        for step, values in epoch.between:
            for name in values.keys() - self._stepped:
                self._run.define_metric(name, step_metric="global_step")
                self._stepped.add(name)
            self._run.log({**values, "global_step": step})
        self._run.log(epoch.all_values())

    def write_images(self, name: str, images: Sequence[CaptionedImage], epoch: int) -> None:
        """Sends images as one panel."""
        image = _wandb().Image
        self._run.log({name: [image(each.pixels, caption=each.caption or None) for each in images]})

    def write_result(self, values: Mapping[str, float]) -> None:
        """Sends the values as the summary, which tables of runs show."""
        self._run.summary.update(dict(values))

    def write_file(self, path: Path) -> None:
        """Sends a file as an artefact of type report; an unchanged one is no new version."""
        artifact = _wandb().Artifact(f"{path.stem}-{self._run.id}", type="report")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self) -> None:
        """Ends the run.

        Raises:
            TimeoutError: Not all is sent after `FINISH_SECONDS`.
        """
        run, self._run = self._run, None
        run.finish(exit_code=0)

    def close(self) -> None:
        """Ends the run as failed."""
        run, self._run = self._run, None
        if run is not None:
            with suppress(Exception):  # what is lost here is sent by a resume
                run.finish(exit_code=1)

    def where(self) -> str:
        """The address of the run, or the folder of its files."""
        return str(self._run.settings.sync_dir if self._is_offline else self._run.url or "")

    def how_to_see(self, folder: Path) -> str:
        """The command that sends what was written offline."""
        return f"wandb sync {folder / 'wandb'}" if self._is_offline else ""

    @property
    def experiment(self) -> Any:
        """The run of wandb, for callbacks that log to it directly."""
        return self._run

    def _mode(self, settings: Any) -> str:
        return str(self.mode or settings.mode)

    def _delete_earlier(self, record: Record) -> None:
        """Deletes files of earlier processes: those of this one hold the whole record, and sync as one."""
        here = Path(self._run.settings.sync_dir).resolve()
        for folder in here.parent.glob(f"offline-run-*-{record.id}"):
            if folder.resolve() != here:
                shutil.rmtree(folder, ignore_errors=True)


def _wandb() -> Any:
    return import_extra("wandb", "wandb", "wandb, which trainer.logger: wandb sends with,")


def _settings() -> Any:
    """The settings of wandb's files and of the environment as it is now."""
    settings = _wandb().setup().settings.model_copy()
    settings.update_from_env_vars(dict(os.environ))
    return settings


def _key_of_netrc(base_url: str) -> str | None:
    """The key that `wandb login` has written to the netrc file."""
    found = import_extra("requests", "wandb", "requests, which wandb uses,").utils.get_netrc_auth(base_url)
    return found[1] if found else None


def _check_answer(base_url: str, key: str) -> None:
    """Asks the service who the user is.

    Raises:
        InputError: It does not answer, or does not know the key.
    """
    requests = import_extra("requests", "wandb", "requests, which wandb uses,")
    query = {"query": "query Viewer { viewer { id } }"}
    try:
        answer = requests.post(f"{base_url}/graphql", json=query, auth=("api", key), timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        raise InputError(
            f"trainer.logger: wandb: {base_url} cannot be reached ({type(error).__name__}). {OFFLINE_FIX}."
        ) from None  # the error's text may hold a proxy's password
    if answer.status_code in (401, 403):
        raise InputError(
            f"trainer.logger: wandb: {base_url} does not accept the API key. Run `wandb login --relogin`, or set "
            f"WANDB_API_KEY to a valid one. {OFFLINE_FIX}."
        )
    if not answer.ok:
        raise InputError(f"trainer.logger: wandb: {base_url} answers with HTTP {answer.status_code}. {OFFLINE_FIX}.")
