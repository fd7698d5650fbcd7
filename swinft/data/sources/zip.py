"""Images inside zip and tar archives, read without unpacking."""

import os
import zlib
from collections.abc import Collection

from swinft.data.image_paths import Flaw
from swinft.data.sources.archives import Member, members
from swinft.data.sources.container import ContainerSource

HEADER = 30  # bytes of a zip member's own header before its name and its extra fields


class ZipSource(ContainerSource):
    """Zip and tar archives: `image: train.zip/{id}.jpg`, or `train.tar/images/{id}.png` where they have folders."""

    def __init__(self) -> None:
        super().__init__()
        self._archives: dict[str, dict[str, dict[str, Member]]] = {}  # by file and folder

    def listed(self, path: str, inner: str) -> Collection[str] | None:
        """The members of a folder."""
        return self._archive(path).get(inner)

    def folders(self, path: str) -> Collection[str]:
        """The archive's folders that have members."""
        return self._archive(path)

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """Links, encrypted or duplicate members, and other unsupported ones."""
        path, member = self._member(reference)
        if member.flaw:
            return Flaw("the image cannot be read from its archive", f"In {path}, {member.flaw}.")
        return super().flaw(reference, inside)

    def read(self, reference: str) -> bytes:
        """The bytes of a member; opens the archive each time, so that processes share no open file.

        Raises:
            ValueError: The archive is damaged, or its member cannot be read.
        """
        path, member = self._member(reference)
        if member.flaw:
            raise ValueError(f"in {path}, {member.flaw}")
        with open(path, "rb") as file:
            self.check_state(path, os.fstat(file.fileno()))
            file.seek(member.start)
            if member.crc is not None:
                header = file.read(HEADER)
                file.seek(sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28)), os.SEEK_CUR)
            content = file.read(member.compressed_size)
        try:
            if member.is_deflated:
                content = zlib.decompressobj(-15).decompress(content, member.size + 1)
        except zlib.error as error:
            raise ValueError(f"it is damaged in {path} ({error})") from error
        if len(content) != member.size or member.crc not in (None, zlib.crc32(content)):
            raise ValueError(f"it is damaged in {path}: size or checksum differ")
        return content

    def _member(self, reference: str) -> tuple[str, Member]:
        folder, name = os.path.split(reference)
        path, inner = self.locate(folder)
        return path, self._archive(path)[inner][name]

    def _archive(self, path: str) -> dict[str, dict[str, Member]]:
        if path not in self._archives:
            self._archives[path] = members(path)
        return self._archives[path]
