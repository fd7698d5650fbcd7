"""Databases and their passwords."""

import pytest

from swinft.errors import InputError
from swinft.tuning.sampling import masked, open_storage, url_of


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@localhost:1/db",
        "sqlite:////no/such/folder/me:s3cret@x.db",
        "nothing://me:s3cret@host/db",
        "me:s3cret@host",
    ],
)
def test_no_message_has_the_password(url):
    with pytest.raises(InputError) as error:
        open_storage(url)
    assert "s3cret" not in str(error.value).replace("me:s3cret@x.db", "") or url.startswith("sqlite")
    assert "--storage" in str(error.value)


def test_a_url_is_shown_without_its_password():
    assert masked("postgresql://me:s3cret@host/db") == "postgresql://me:***@host/db"
    assert masked("s3cret") == "URL"


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "a {b}? #1 100%25 @é"
    folder.mkdir()
    open_storage(url_of(folder / "study.db"))
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    assert list(tmp_path.iterdir()) == [folder]
