"""Every state that a crash can leave on disk, one by one.

A fold's life is played with the real store and small contents. Around every write, flush, rename and unlink the folder is
photographed, also with writes torn, with content that was never flushed gone, and with the names in a folder as they were
when it was last flushed. From each photograph the fold must go on.
"""

import os
from pathlib import Path

import pytest

from swinft.run.layout import Fold
from swinft.store import commit, discard, has_record, newest_intact, verify

EPOCHS = 72
Photo = tuple[int, dict[str, bytes]]  # epochs committed so far, and every file's content


def play(fold: Fold, start: int, done: list[int]) -> None:
    """What the recorder and `fit` leave on disk, epoch by epoch, from the store's functions alone."""
    for epoch in range(start + 1, EPOCHS + 1):
        commit(fold.metrics, f"{epoch} epochs".encode(), "test")
        if epoch % 3 == 1:  # a better epoch
            commit(fold.weights, f"weights {epoch}".encode() * 40, "test")
        commit(fold.checkpoint(epoch), f"checkpoint {epoch}".encode() * 40, "test")
        done.append(epoch)
        for old in fold.checkpoints[2:]:
            discard(old)
    commit(fold.weights, b"final weights", "test")
    commit(fold.oof, b"id,x", "test")
    commit(fold.result, b"{}", "test")
    for checkpoint in fold.checkpoints:
        discard(checkpoint)


class Camera:
    """Photographs a folder around every operation that changes it.

    Names are as lasting as the folder that holds them: until that is flushed, what was made, renamed or deleted in it may
    be undone by a loss of power, whatever became of other folders.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.photos, self.done = root, list[Photo](), list[int]()
        self.flushed, self.seen = set[int](), set[object]()
        self.durable: dict[Path, dict[str, bytes | None]] = {root.parent: self.names(root.parent)}
        for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (os, "fsync")):
            patch.setattr(owner, name, self._around(getattr(owner, name), name))

    def _around(self, operation, name):
        def photographed(*arguments, **options):
            self.shoot()
            result = operation(*arguments, **options)
            if name == "fsync":
                self.flush(arguments[0])
            self.shoot()
            return result

        return photographed

    def flush(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.flushed.add(status.st_ino)
        for folder in [self.root.parent, *filter(Path.is_dir, [self.root, *self.root.rglob("*")])]:
            if folder.stat().st_ino == status.st_ino:
                self.durable[folder] = self.names(folder)

    @staticmethod
    def names(folder: Path) -> dict[str, bytes | None]:
        """Files with their content, and folders, which have none."""
        return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}

    def shoot(self) -> None:
        files = [path for path in self.root.rglob("*") if path.is_file()]
        photo = {str(path.relative_to(self.root)): path.read_bytes() for path in files}
        self._keep(photo)
        for path in files:
            name = str(path.relative_to(self.root))
            if path.stat().st_ino not in self.flushed:  # the power goes, and with it what was not flushed
                for left in (0, len(photo[name]) // 2):
                    self._keep({**photo, name: photo[name][:left]})
        for folder in [self.root.parent, *filter(Path.is_dir, [self.root, *self.root.rglob("*")])]:
            self._keep(self._undone(photo, folder))

    def _undone(self, photo: dict[str, bytes], folder: Path) -> dict[str, bytes]:
        """The photo with one folder's names as they were when it was last flushed."""
        known = self.durable.get(folder, {})
        old = {}
        for name, content in photo.items():
            path = self.root / name
            if folder not in path.parents:
                old[name] = content
            elif path.parent != folder and path.relative_to(folder).parts[0] in known:
                old[name] = content  # in a folder in it, whose name is lasting
        if folder != self.root.parent:
            files = {path: content for path, content in known.items() if content is not None}
            old |= {str((folder / name).relative_to(self.root)): content for name, content in files.items()}
        return old

    def _keep(self, photo: dict[str, bytes]) -> None:
        key = (len(self.done), frozenset(photo.items()))
        if key not in self.seen:
            self.seen.add(key)
            self.photos.append((len(self.done), photo))


def develop(photo: dict[str, bytes], root: Path) -> Fold:
    for name, content in photo.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    root.mkdir(exist_ok=True)
    return Fold(root, 0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Photo]:
    root = tmp_path_factory.mktemp("run") / "fold"
    with pytest.MonkeyPatch.context() as patch:
        camera = Camera(root, patch)
        play(Fold(root, 0), 0, camera.done)
    return camera.photos


def test_there_are_more_than_a_thousand_states(photos):
    assert len(photos) > 1000


def test_whatever_has_a_record_is_whole_and_no_committed_epoch_is_lost(photos, tmp_path):
    for number, (epochs, photo) in enumerate(photos):
        fold = develop(photo, tmp_path / str(number))
        for path in fold.root.iterdir():
            if path.is_file() and has_record(path):
                verify(path)
        assert all((fold.root / record.stem).is_file() for record in (fold.root / ".commits").glob("*.json"))
        newest = newest_intact(fold.checkpoints)
        if not fold.is_done and epochs:
            assert newest is not None, number
            assert int(newest.stem.removeprefix("epoch-")) >= epochs


def test_from_states_all_along_the_fold_ends_as_it_would_have(photos, tmp_path, request):
    step = 10 if request.config.getoption("--faults") == "full" else 100
    finished = {name: content for name, content in photos[-1][1].items() if not name.endswith(".tmp")}
    for number, (_, photo) in enumerate(photos[::step]):
        fold = develop(photo, tmp_path / str(number))
        if not fold.is_done:
            newest = newest_intact(fold.checkpoints)
            play(fold, int(newest.stem.removeprefix("epoch-")) if newest else 0, [])
        for name, content in finished.items():
            assert (fold.root / name).read_bytes() == content, (number, name)
