"""Pseudo-terminals: what was written to them, and what they show."""

import os
import pty
import re
import threading
from collections.abc import Callable
from contextlib import suppress


class Terminal:
    """A pseudo-terminal: what was written to it, and what it shows.

    Attributes:
        attach: Makes it the standard output; set by the fixture.
    """

    attach: Callable[[], None]

    def __init__(self) -> None:
        self._main, end = pty.openpty()
        self.stream = os.fdopen(end, "w")
        self._content = b""
        self._reader = threading.Thread(target=self._read, daemon=True)  # else it is full after some thousand bytes
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # of Linux, where the other end is closed
            while content := os.read(self._main, 65536):
                self._content += content

    def close(self) -> str:
        """Everything that was written."""
        if not self.stream.closed:
            self.stream.close()
            self._reader.join(timeout=10)
            os.close(self._main)
        return self._content.decode()

    def screen(self) -> list[str]:
        """The lines that are left to see."""
        lines, row, column = [""], 0, 0
        for piece in re.findall(r"\x1b\[\d*[JKA]|[\r\n]|[^\x1b\r\n]+", plain(self.close())):
            if piece == "\x1b[J":
                lines[row:] = [lines[row][:column]]
            elif piece == "\x1b[K":
                lines[row] = lines[row][:column]
            elif piece.endswith("A") and piece[0] == "\x1b":
                row -= int(piece[2:-1])
            elif piece == "\r":
                column = 0
            elif piece == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            else:
                lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
                column += len(piece)
        return lines


def plain(text: str) -> str:
    """Text without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)
