"""Configs from YAML files and texts, and back. Imports no JAX."""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from gdkit.app.config.complaints import explain_errors
from gdkit.app.config.schema import Config, LearnerConfig, StudyConfig, SweepConfig
from gdkit.app.config.source import ConfigError, apply_override, parse, read_text


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """The config in a file, with ``key.path=value`` overrides applied in order.

    Raises:
      ConfigError: the file cannot be read, is not YAML, or does not follow the schema.
    """
    return loads(read_text(path), overrides, file=str(path))


def loads(text: str, overrides: Iterable[str] = (), *, file: str = "<config>") -> Config:
    """The config in a text; otherwise like `load`."""
    source = parse(text, file)
    if source.tree is None:
        raise ConfigError(f"{file}: empty. gdkit new NAME writes a config to start from.")
    if not isinstance(source.tree, dict):
        raise ConfigError(f"{file}: a config is a mapping of keys to values, not a {type(source.tree).__name__}.")
    for assignment in overrides:
        source = apply_override(source, assignment)
    kinds = {"experiment": StudyConfig, "learner": LearnerConfig}
    model = next((kind for key, kind in kinds.items() if key in source.tree), SweepConfig)
    try:
        config = model.model_validate(source.tree)
    except pydantic.ValidationError as error:
        raise ConfigError(explain_errors(source, model, error.errors(include_url=False))) from None
    config.attach_source(source)
    return config


def dump(config: Config) -> str:
    """YAML that loads to an equal config, with defaults and overrides written out."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.width = 120
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(config.model_dump(by_alias=True), stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Preserves the order of keys, expands aliases, and quotes every string that is not plainly a word."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.sort_base_mapping_type_on_output = False

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_word(self, text: str) -> Any:
        plain = re.fullmatch(r"[A-Za-z_][\w./ -]*(:\w[\w.]*)?", text, re.ASCII) and text == text.strip()
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Representer.add_representer(str, _Representer.represent_word)
