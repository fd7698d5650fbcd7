"""What is said and shown: names, options, help, and the code that a fold starts."""

import yaml

from swinft.run.fit import fold_child
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.processes import run_children


def test_f117_a_folder_called_swinft_does_not_hide_the_package_from_the_folds(tmp_path, monkeypatch):
    decoy = tmp_path / "swinft"
    decoy.mkdir()
    for name in ("__init__.py", "__main__.py", "cli.py"):
        (decoy / name).write_text(f"open({str(tmp_path / 'decoy_ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    run = Run(tmp_path / "runs" / "x")
    run.root.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump({"name": "x", "runs": str(tmp_path / "runs")}))
    run.fold(0).lock.parent.mkdir()
    with hold(run.fold(0).lock):  # the fold's own command answers so before its imports
        codes = run_children({0: fold_child(run, 0, [], {})}, [{}])
    assert codes == {0: 2}
    assert not (tmp_path / "decoy_ran").exists()
