"""COCO files: rows of annotations and images, and every record that does not fit."""

import json

import swinft
from tests.data.tables.steps.test_make import problems

GIVEN = {
    "images": [
        {"id": 2, "file_name": "b.png", "width": 4, "height": 3, "location": "reef", "license": {"id": 1}},
        {"id": "007", "file_name": "a.png", "width": 4, "height": 3.0},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": "007",
            "category_id": 5,
            "bbox": [0.1, 1e-7, 2, 3],
            "segmentation": [[1, 2]],
            "iscrowd": 0,
        },
        {"id": 10, "image_id": 2, "bbox": [1, 2, 3, 4]},
    ],
    "categories": [{"id": 5, "name": "Sea star"}],
}


def test_annotations_and_images_become_rows(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(GIVEN))
    found = swinft.read_table([{"coco": "a.json"}], tmp_path)
    assert found.to_dict("records") == [
        {"annotation_id": "1", "image_id": "007", "file_name": "a.png", "category": "Sea star", "x": "0.1", "y": "1e-07",
         "width": "2", "height": "3", "category_id": "5", "iscrowd": "0", "image_width": "4", "image_height": "3",
         "location": ""},
        {"annotation_id": "10", "image_id": "2", "file_name": "b.png", "category": "", "x": "1", "y": "2", "width": "3",
         "height": "4", "category_id": "", "iscrowd": "", "image_width": "4", "image_height": "3", "location": "reef"},
    ]  # fmt: skip
    found = swinft.read_table([{"coco": {"path": "a.json", "rows": "images"}}], tmp_path)
    assert found.to_numpy().tolist() == [["2", "b.png", "4", "3", "reef"], ["007", "a.png", "4", "3", ""]]


def test_records_that_do_not_fit_are_listed(tmp_path):
    bad = json.loads(json.dumps(GIVEN))
    bad["images"].append({"id": 2})
    bad["annotations"] += [{"id": 3, "image_id": 9}, {"id": 4, "image_id": 2, "category_id": 6, "bbox": [1, 2]}]
    (tmp_path / "a.json").write_text(json.dumps(bad))
    found = problems(tmp_path, {"coco": "a.json"})
    assert [each.partition(": the")[0] for each in found] == ["a.json:3: value '2'", "a.json:3: value '9'", "a.json:4: value '6'", "a.json:4: value '[1, 2]'"]  # fmt: skip
    for text, said in {
        "[]": "no list `annotations`",
        "{": "it is no JSON",
        '{"annotations": [1]}': "no list `annot",
    }.items():
        (tmp_path / "a.json").write_text(text)
        assert said in problems(tmp_path, {"coco": "a.json"})[0]
