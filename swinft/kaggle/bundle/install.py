"""Which wheels a notebook installs: those of packages that its image lacks, or has in a version that does not do."""

from pathlib import Path


def wheels_to_install(folder: Path) -> list[Path]:
    """The wheels of a bundle that this environment needs; the notebook of a bundle holds this function.

    Args:
        folder: The folder of wheels, with `needed.json`: for each package the versions that do, and the packages with
            which it is installed because it was compiled with them.

    Raises:
        RuntimeError: A package is missing, or has another version, and there is no wheel of it.
    """
    import json
    import re
    from importlib.metadata import PackageNotFoundError, version

    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # pip has its own copy
        from pip._vendor.packaging.specifiers import SpecifierSet  # type: ignore[assignment]

    def canonical(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    there = {canonical(path.name.partition("-")[0]): path for path in sorted(folder.glob("*.whl"))}
    if "swinft" not in there or not (folder / "needed.json").is_file():
        raise RuntimeError(f"{folder} has no wheel of swinft, or no needed.json: upload the dataset of wheels again.")
    needed = json.loads((folder / "needed.json").read_text())
    found: dict[str, str | None] = {}
    same = {"opencv-python-headless": ["opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"]}
    for name in needed:
        found[name] = None
        for each in [name, *same.get(name, [])]:  # the same modules under other names
            try:
                found[name] = found[name] or version(each)
            except PackageNotFoundError:
                continue
    lacks = {
        name
        for name, need in needed.items()
        if found[name] is None or not SpecifierSet(need["allowed"]).contains(str(found[name]), prereleases=True)
    }
    wrong = [
        f"{name}{needed[name]['allowed']} is needed, and {found[name] or 'nothing'} is installed"
        for name in sorted(lacks)
        if name not in there
    ]
    if wrong:
        raise RuntimeError(f"{'; '.join(wrong)}. Make the bundle with --wheels download, or take a newer image.")
    lacks |= {name for name, need in needed.items() if lacks & {*need["compiled_with"]} and name in there}
    return [there["swinft"], *(there[name] for name in sorted(lacks))]
