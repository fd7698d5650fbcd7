"""The wrapper of Kaggle's client where no command uses it: datasets and notebooks."""

import json
from pathlib import Path

import pytest

from swinft.errors import InputError, RunError
from swinft.kaggle.client import Client
from tests.kaggle.conftest import SLUG
from tests.kaggle.fake_server import USER, Fault


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A folder with a dataset's metadata, a file and a folder."""
    folder = tmp_path / "dataset"
    (folder / "runs" / "tiny").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "runs" / "tiny" / "config.yaml").write_text("a: 1")
    metadata = {"title": "weights of pets", "id": f"{USER}/weights-of-pets", "licenses": [{"name": "CC0-1.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata))
    return folder


def test_a_dataset_is_created_and_gets_versions(kaggle, dataset):
    client = Client()
    assert client.user == USER
    made = client.dataset_create(dataset)
    assert made.url == f"https://www.kaggle.com/datasets/{USER}/weights-of-pets"
    tokens = kaggle.datasets[f"{USER}/weights-of-pets"]["files"]
    assert sorted(token.partition(":")[2] for token in tokens) == ["runs.zip", "weights.bin"]
    assert b"weights" in kaggle.uploads.values()
    assert client.dataset_status(f"{USER}/weights-of-pets") == "ready"
    with pytest.raises(InputError, match="already in use by a dataset"):
        client.dataset_create(dataset)
    client.dataset_version(dataset, "second", folders="skip")
    assert kaggle.datasets[f"{USER}/weights-of-pets"]["versions"] == 2
    with pytest.raises(InputError, match=f"read the dataset {USER}/other"):
        client.dataset_status(f"{USER}/other")


def test_a_dataset_with_wrong_metadata_or_a_file_that_cannot_be_sent_is_not_made(kaggle, dataset):
    kaggle.faults["upload"] = [Fault(400)]
    with pytest.raises((InputError, RunError), match="Upload unsuccessful"):
        Client().dataset_create(dataset)
    (dataset / "dataset-metadata.json").write_text(json.dumps({"title": "weights", "id": f"{USER}/w", "licenses": []}))
    with pytest.raises(InputError, match="exactly one license"):
        Client().dataset_create(dataset)
    assert kaggle.datasets == {}


def test_a_notebook_is_pushed_and_what_kaggle_leaves_out_is_said(kaggle, tmp_path):
    (tmp_path / "infer.py").write_text("print(1)")
    metadata = {"id": f"{USER}/infer-pets", "title": "infer pets", "code_file": "infer.py", "language": "python"}
    metadata |= {"kernel_type": "script", "dataset_sources": [f"{USER}/nothing"], "competition_sources": [SLUG]}
    (tmp_path / "kernel-metadata.json").write_text(json.dumps(metadata))
    client = Client()
    made = client.kernel_push(tmp_path)
    assert made.version == 1
    assert made.notes == (f"Kaggle left out dataset sources: {USER}/nothing",)
    assert client.kernel_status(f"{USER}/infer-pets") == ("running", "")
    with pytest.raises(InputError, match="read the notebook a/other"):
        client.kernel_status("a/other")


def test_files_and_submissions_are_listed_to_the_last_page(kaggle):
    contest = kaggle.contests[SLUG]
    contest.files = {f"train/{i:03}.jpg": bytes(i) for i in range(250)}
    client = Client()
    assert client.files(SLUG) == {name: len(content) for name, content in contest.files.items()}
    for i in range(205):
        kaggle._submit({"competitionName": SLUG}, f"{i}.csv")
    found = client.submissions(SLUG)
    assert [each.file_name for each in found] == [f"{i}.csv" for i in reversed(range(205))]
