"""The command `ensemble`, and `swinft.ensemble` in Python: arguments and YAML files become a recipe."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

from swinft.errors import InputError
from swinft.run import api, layout
from swinft.run.config.parser import Parser, key_types
from swinft.run.config.value_checks import wrong_values
from swinft.run.config.yaml_checks import Allowed, file_problems
from swinft.run.ensemble.ensemble import make_ensemble
from swinft.run.ensemble.recipe import Recipe
from swinft.run.python_inputs import plain, python_inputs, write_keys

# Not in a YAML file, which may come from someone else.
ONLY_OPTIONS = ("config", "run", "allow_code", "overwrite")


def ensemble_from_argv(argv: Sequence[str]) -> layout.Run:
    """Makes the ensemble of a command line.

    Raises:
        InputError: An argument, a key or a member is wrong.
    """
    return make_ensemble(read_recipe(argv))


def read_recipe(argv: Sequence[str]) -> Recipe:
    """The recipe of a command line: members, options, and YAML files with the same keys.

    Raises:
        InputError: A file is missing, or a key or value is wrong.
    """
    parser = _parser()
    types = {key: hint for key, hint in key_types(parser).items() if key not in ONLY_OPTIONS}
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    files, allowed = [Path(value) for word, value in pairwise(words) if word == "--config"], Allowed(types, {}, [])
    problems = [problem for path in files for problem in file_problems(path, allowed)]
    if problems:
        raise _refusal([*problems, *wrong_values(files, [], allowed, problems)])
    try:
        given = parser.parse_args(words).as_dict()
    except InputError as error:
        raise (_refusal(problems) if (problems := wrong_values(files, [], allowed)) else error) from None
    del given["config"]
    positional = given.pop("run")
    return Recipe(**{**given, "members": positional or given["members"]})


def _refusal(problems: list[str]) -> InputError:
    return InputError("\n  ".join(["the recipe is wrong:", *problems]), problems)


def _parser() -> Parser:
    parser = Parser(prog="swinft ensemble", flags=("common_rows", "leave_one_out", "overwrite"), lists=("allow_code",))
    parser.add_argument("--config", action="config", help="a YAML file with the keys below; options override it")
    parser.add_argument("run", nargs="*", type=str, default=[], help="the members: runs, or OOF.csv:TEST.csv")
    parser.add_class_arguments(Recipe)
    return parser


def ensemble(
    members: Sequence[Any] | str | PurePath | None = None,
    name: str | None = None,
    *,
    overwrite: bool = False,
    allow_code: str | Sequence[str] = (),
    **options: Any,
) -> "api.Run":
    """Combines the predictions of several runs; does and prints the same as `swinft ensemble`.

    Args:
        members: Folders, runs, `OOF.csv:TEST.csv`, or mappings with `name`, `oof` and `test`; or a YAML file.
        name: Name of the ensemble: its folder inside `runs`.
        overwrite: Delete the earlier ensemble of this name.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.
        options: `runs`, `base`, `method`, `common_rows`, `bootstrap`, `leave_one_out`, `seed`.

    Returns:
        The ensemble, which is a run: it has `oof`, `scores`, `errors`, `predict`, `submit` and `report`.

    Raises:
        InputError: A member is missing, unfinished, or does not fit; or an option is wrong.
    """
    with python_inputs() as folder:
        words = api.config_words(folder, Path(members) if isinstance(members, str | PurePath) else None, {}, allow_code)
        words += ["--overwrite"] if overwrite else []
        keys: dict[str, Any] = dict(options)
        if members is not None and not isinstance(members, str | PurePath):
            keys["members"] = [_member(each) for each in members]
        keys |= {"name": name} if name is not None else {}
        if keys:
            words.append(f"--config={write_keys(folder / 'recipe', plain(keys))}")
        made = ensemble_from_argv(words)
    return api.Run(made.root, allow_code)


def _member(given: Any) -> Any:
    if isinstance(given, api.Run):
        return str(given.folder)
    return dict(given) if isinstance(given, Mapping) else str(given)
