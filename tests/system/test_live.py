"""The live view in the kernel of a notebook: what it shows while a cell runs, and what the notebook saves."""

import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from swinft.system.live import Screen
from tests.conftest import ROOT, tiny_config, write_config

DISPLAYS = ("display_data", "update_display_data")


class Recorded(NotebookClient):
    """Keeps the displays that the kernel sends."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] in DISPLAYS:
            self.displays = [*getattr(self, "displays", []), (msg["msg_type"], msg["content"])]
        return super().process_message(msg, cell, cell_index)


@pytest.mark.slow  # half a minute: a kernel, and a process for each of two folds
def test_a_kernel_shows_one_display_and_saves_it_empty(competition, tmp_path):
    config = write_config(
        tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 150})
    )
    code = f"import swinft\nrun = swinft.fit({str(config)!r})\nprint('done')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = Recorded(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    ours = [(kind, shown) for kind, shown in client.displays if "text/html" in shown["data"]]
    pages = [shown["data"]["text/html"] for _, shown in ours]
    views = [re.sub(r"</?span[^>]*>", "", page) for page in pages if "left for everything" in page]
    assert len(views) >= 5
    for fold in range(2):
        assert any(f"fold {fold}  epoch" in page and f"; {fold} of 2 folds done after" in page for page in views)
    numbers = [shown["transient"]["display_id"] for _, shown in ours]
    for number in set(numbers):  # such as those of the check of images, and of the folds
        of_one = [(kind, page) for (kind, _), page, each in zip(ours, pages, numbers, strict=True) if each == number]
        assert [kind for kind, _ in of_one] == ["display_data"] + ["update_display_data"] * (len(of_one) - 1)
        assert of_one[-1][1] == ""
    saved = notebook.cells[0].outputs
    assert [each["data"]["text/html"] for each in saved if each.output_type == "display_data"] == [""] * len(
        set(numbers)
    )
    said = "".join(each["text"] for each in saved if each.output_type == "stream" and each["name"] == "stdout")
    assert all(f"fold {fold}  epoch {epoch}/150" in said for fold in range(2) for epoch in (1, 75, 150))
    assert said.endswith("done\n")
    assert not re.search(r"\x1b|left for everything", said)


def test_a_view_for_another_size_is_not_drawn_again(terminal, monkeypatch):
    """In a terminal that was made narrower its lines would wrap, and some of them would stay."""
    terminal.attach()
    screen = Screen()
    screen.show(lambda columns, rows, encoding: ["x" * columns] * 3)
    screen.write(sys.stdout, "first\n")
    monkeypatch.setenv("COLUMNS", "40")
    screen.write(sys.stdout, "second\n")
    screen.show(lambda columns, rows, encoding: ["y" * columns] * 3)
    before, _, after = terminal.close().partition("second")
    assert before.partition("first")[2].count("x" * 119) == 3
    assert "x" not in after
    assert after.count("y" * 39) == 3
