"""What ``gdkit new`` writes: a config and a problem to start from, or an example: a config and the study it runs."""

import ast
import itertools
import re
import string
from collections.abc import Iterator
from pathlib import Path

from gdkit.errors import InputValueError, bad_value, unknown_name

_TEMPLATES = Path(__file__).parent / "templates"
_PACKAGED = _TEMPLATES / "examples"  # of an installed wheel
_ROOT = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2]  # of a checkout


def example_names() -> list[str]:
    """The names of all examples."""
    return sorted(path.stem for path in (_ROOT / "configs").glob("*.yaml"))


def describe_example(name: str) -> str:
    """The first sentence of the comment with which the config begins."""
    lines = (_ROOT / _get_config_path(name)).read_text(encoding="utf-8").splitlines()
    paragraph = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return re.split(r"(?<=[.?!]) (?=[A-Z])", " ".join(line[2:] for line in paragraph))[0]


def example_files(name: str) -> list[Path]:
    """The files of an example: its config, its study, and the modules that the study imports.

    Raises:
      InputValueError: there is no such example.
    """
    if name not in example_names():
        raise unknown_name("--example", name, example_names())
    config = _get_config_path(name)
    study = re.search(r"^experiment: *([\w.]+):", (_ROOT / config).read_text(encoding="utf-8"), re.MULTILINE)
    pending, modules = list(_find_module_files(study[1])) if study else [], set()
    while pending:
        path = pending.pop()
        if path not in modules:
            modules.add(path)
            pending += _find_imported_files(path)
    return [config, *sorted(modules)]


def copy_example(name: str, folder: Path) -> list[Path]:
    """Copy an example to a folder; return the paths of the files that were written.

    An existing file with the same content is skipped: examples share modules.

    Raises:
      InputValueError: there is no such example, or a file exists with other content. Nothing has been written then.
    """
    contents = {folder / path: (_ROOT / path).read_bytes() for path in example_files(name)}
    for path, content in contents.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise InputValueError(f"{path} exists with other content. Move it, or copy the example to an empty folder.")
    written = [path for path in contents if not path.exists()]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[path])
    return written


def write_starter(name: str, folder: Path) -> tuple[Path, Path]:
    """Write NAME.yaml and NAME_problem.py; return their paths.

    Raises:
      InputValueError: the name cannot be that of a file and a module, or a file exists.
    """
    name = name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]{0,80}", name):
        remedy = "Begin with a letter, then letters, digits and . _ - only"
        raise bad_value("NAME", name, "not a valid name", remedy)
    module = re.sub(r"\W", "_", name) + "_problem"
    config, problem = folder / f"{name}.yaml", folder / f"{module}.py"
    for path in (config, problem):
        if path.exists():
            raise InputValueError(f"{path}: the file exists and is not overwritten. Choose another name.")
    for path, template in ((config, "config.yaml.txt"), (problem, "problem.py.txt")):
        text = string.Template((_TEMPLATES / template).read_text(encoding="utf-8"))
        path.write_text(text.substitute(name=name, module=module), encoding="utf-8")
    return config, problem


def _get_config_path(name: str) -> Path:
    return Path("configs", f"{name}.yaml")


def _find_imported_files(path: Path) -> Iterator[Path]:
    """The files of the modules of studies that a module imports, also within functions."""
    for node in ast.walk(ast.parse((_ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _find_module_files(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:  # a submodule, or a name of the module
                yield from _find_module_files(f"{node.module}.{alias.name}")


def _find_module_files(name: str) -> Iterator[Path]:
    """The files of a module of studies and of the packages that contain it; none for other modules."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1) if parts[0] == "experiments" else ():
        stem = Path(*parts[:count])
        yield from (path for path in (stem / "__init__.py", stem.with_suffix(".py")) if (_ROOT / path).is_file())
