"""Templates become files inside the images' folder, and every file is there."""

import os
from pathlib import Path

import pytest

from swinft.data.image_paths import fields
from swinft.data.sources.files import FileSource
from swinft.data.tables.table import read_table


def resolve(root, template, rows, header="id,Subject Focus,label"):
    path = root / "train.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    problems = []
    table = read_table(path, "id", {}, problems)
    paths = FileSource().references(table, template, root, problems)
    return [os.path.relpath(path, root) for path in paths], problems


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_any_columns_make_a_path(tmp_path):
    touch(tmp_path / "images" / "cat" / "7_1.jpg", tmp_path / "images" / "dog" / "007_0.jpg")
    template = "images/{label}/{id}_{Subject Focus}.jpg"
    assert fields(template) == ["label", "id", "Subject Focus"]
    paths, problems = resolve(tmp_path, template, ["7,1,cat", "007,0,dog"])
    assert problems == []
    assert paths == ["images/cat/7_1.jpg", "images/dog/007_0.jpg"]


@pytest.mark.parametrize(
    ("template", "id"),
    [
        ("images/{id}.jpg", "../secret"),
        ("images/{id}.jpg", "a/../../secret"),
        ("images/{id}.jpg", "../images-private/x"),
        ("{id}", "/etc/passwd"),
        ("{id}", ".."),
    ],
)
def test_a_cell_cannot_leave_the_images_folder(tmp_path, template, id):
    touch(tmp_path / "secret.jpg", tmp_path / "images" / "a" / "b.jpg", tmp_path / "images-private" / "x.jpg")
    _, problems = resolve(tmp_path, template, [f"{id},1,x"])
    assert [problem.message for problem in problems] == ["the path leaves the images' folder"]


def test_a_relative_root_guards_as_well(tmp_path, monkeypatch):
    touch(tmp_path / "secret.jpg", tmp_path / "data" / "a.jpg")
    monkeypatch.chdir(tmp_path / "data")
    assert len(resolve(Path("."), "{id}.jpg", ["../secret,1,x", "a,1,x"])[1]) == 1


def test_a_link_may_not_lead_out_but_the_folder_may_be_one(tmp_path):
    touch(tmp_path / "disk" / "a.jpg", tmp_path / "secret.jpg", tmp_path / "private" / "p.jpg")
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(tmp_path / "disk")
    assert resolve(data, "images/{id}.jpg", ["a,1,x"])[1] == []
    (tmp_path / "disk" / "b.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "disk" / "sub").symlink_to(tmp_path / "private")
    _, problems = resolve(data, "images/{id}.jpg", ["b,1,x", "sub/p,1,x"])
    assert [problem.message for problem in problems] == ["the path is a link that leaves the images' folder"] * 2


def test_missing_files_are_named_with_the_nearest(tmp_path):
    touch(*(tmp_path / "images" / name for name in ("a.jpeg", "b.JPG", "d.jpg")))
    (tmp_path / "images" / "e.jpg").mkdir()
    (tmp_path / "images" / "f.jpg").symlink_to("nowhere")
    _, problems = resolve(tmp_path, "images/{id}.jpg", [f"{id},1,x" for id in "abcdef"])
    assert [(problem.line, problem.id) for problem in problems] == [(2, "a"), (3, "b"), (4, "c"), (6, "e"), (7, "f")]
    assert "'a.jpeg'" in problems[0].fix
    assert "'b.JPG'" in problems[1].fix
    assert "Restore" in problems[2].fix
    assert all(problem.is_missing for problem in problems)


def test_a_missing_folder_and_a_missing_extension_are_said(tmp_path):
    touch(tmp_path / "images" / "a.jpg")
    assert "There is no folder" in resolve(tmp_path, "imgs/{id}.jpg", ["a,1,x"])[1][0].fix
    assert "'a.jpg'" in resolve(tmp_path, "images/{id}", ["a,1,x"])[1][0].fix
