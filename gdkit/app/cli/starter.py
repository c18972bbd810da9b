"""``gdkit new``: a config and a problem to start from."""

import importlib.resources
import re
import string
from pathlib import Path

from gdkit.app.config.source import ConfigError

_TEMPLATES = importlib.resources.files("gdkit.app") / "templates"


def write_starter(name: str, folder: Path) -> tuple[Path, Path]:
    """Write NAME.yaml and NAME_problem.py; return their paths.

    Raises:
      ConfigError: the name cannot be that of a file and a module, or a file exists.
    """
    name = name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]{0,80}", name):
        raise ConfigError(f"NAME={name!r}: not a valid name. Begin with a letter, then letters, digits and . _ - only.")
    module = re.sub(r"\W", "_", name) + "_problem"
    templates = {folder / f"{name}.yaml": "config.yaml.txt", folder / f"{module}.py": "problem.py.txt"}
    for path in templates:
        if path.exists():
            raise ConfigError(f"{path}: the file exists and is not overwritten. Choose another name.")
    for path, template in templates.items():
        text = string.Template((_TEMPLATES / template).read_text(encoding="utf-8"))
        path.write_text(text.substitute(name=name, module=module), encoding="utf-8")
    config, problem = templates
    return config, problem
