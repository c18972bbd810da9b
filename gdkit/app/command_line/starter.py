"""``gdkit new``: a config and a loss to start from."""

import importlib.resources
import re
import string
from pathlib import Path

from gdkit.app.config.source import ConfigError

_TEMPLATES = importlib.resources.files("gdkit.app") / "templates"


def write(name: str, folder: Path) -> tuple[Path, Path]:
    """Writes NAME.yaml and NAME_problem.py; returns their paths.

    Raises:
      ConfigError: a name that cannot be a file's and a module's, or a file that exists.
    """
    name = name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]{0,80}", name):
        raise ConfigError(f"NAME={name!r}: not a name. Begin with a letter, then letters, digits and . _ - only.")
    module = re.sub(r"\W", "_", name) + "_problem"
    texts = {folder / f"{name}.yaml": "config.yaml.txt", folder / f"{module}.py": "problem.py.txt"}
    for path in texts:
        if path.exists():
            raise ConfigError(f"{path}: there already, and not overwritten. Choose another name.")
    for path, template in texts.items():
        text = string.Template((_TEMPLATES / template).read_text(encoding="utf-8"))
        path.write_text(text.substitute(name=name, module=module), encoding="utf-8")
    config, loss = texts
    return config, loss
