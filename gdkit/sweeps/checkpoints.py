"""Files of params: what a sweep starts from, and what `SweepResult.export` writes."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.descent.given_state import as_state
from gdkit.errors import bad_value, import_package
from gdkit.store import digest
from gdkit.store.files import failed, publish_output
from gdkit.trees import is_key, name_leaves, to_host
from gdkit.types import PyTree, State

_AUX, _KEYS = "aux/", "keys"  # the prefix of names of aux; in the metadata, the implementations of typed keys
_FORMAT = "gdkit"  # in the metadata: the version of these names


def read_start(start: State | PyTree | str | Path) -> State | None:
    """The state that `start` of `sweep` stands for; aux and optimizer state are None where it has none.

    Raises:
      InputValueError: the file does not exist, is no checkpoint, or is damaged.
    """
    if start is None or not isinstance(start, str | Path):
        return None if start is None else as_state(start)
    path = Path(start)
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz, "": _read_orbax}
    if path.suffix not in readers:
        problem = "neither a .safetensors nor an .npz file, nor the folder of an Orbax checkpoint"
        raise bad_value("start", str(path), problem, "Export one: result.export")
    if not (path.is_file() if path.suffix else path.is_dir()):
        raise bad_value("start", str(path), f"there is no such {'file' if path.suffix else 'folder'}", "Check the path")
    return readers[path.suffix](path)


def digest_start(start: State) -> str:
    """The SHA-256 over names and numbers of a state."""
    parts = {
        f"{name}/{path}": leaf for name in start._fields for path, leaf in name_leaves(getattr(start, name)).items()
    }
    return digest(*(x for name, leaf in sorted(parts.items()) for x in (name, to_host(leaf))))


def write_params(path: Path, state: State | PyTree, metadata: Mapping[str, Any]) -> None:
    """Write params and aux to a ``.safetensors`` file, or the whole state to an Orbax checkpoint, a folder.

    The state of a Learner that is no `State` counts as params.

    Raises:
      InputValueError: the name has another suffix, the folder exists, or two leaves have the same name.
      MissingPackageError: the package that writes it is not installed.
      StoreError: the system refused.
    """
    state = as_state(state)
    if path.suffix == ".safetensors":
        _write_safetensors(path, state, metadata)
    elif path.suffix:
        remedy = "Name a .safetensors file, or a folder without a suffix for an Orbax checkpoint"
        raise bad_value("path", str(path), f"gdkit writes no {path.suffix} files", remedy)
    else:
        _write_orbax(path, state, metadata)


def _write_safetensors(path: Path, state: State, metadata: Mapping[str, Any]) -> None:
    save = import_package("safetensors.numpy", "export", "A .safetensors file", "safetensors").save
    params = {name or "params": leaf for name, leaf in name_leaves(state.params).items()}
    aux = {_AUX + (name or "params"): leaf for name, leaf in name_leaves(state.aux).items()}
    if clashes := params.keys() & aux.keys():
        raise bad_value("params", min(clashes), "a leaf of aux has this name", "Export to an Orbax checkpoint")
    leaves = params | aux
    keys = _list_keys(leaves)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    arrays = {name: np.array(to_host(leaf), order="C") for name, leaf in leaves.items()}
    publish_output(path, [save(arrays, metadata=texts | {_FORMAT: "1", _KEYS: json.dumps(keys)})])


def _write_orbax(path: Path, state: State, metadata: Mapping[str, Any]) -> None:
    ocp = import_package("orbax.checkpoint", "export", "An Orbax checkpoint", "orbax-checkpoint")
    if path.exists():
        raise bad_value("path", str(path), "it exists", "Name another folder")
    parts = {name: jax.tree.map(to_host, part) for name, part in state._asdict().items() if jax.tree.leaves(part)}
    about = {**metadata, _KEYS: {name: _list_keys(name_leaves(part)) for name, part in state._asdict().items()}}
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            items = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
            checkpointer.save(path.absolute(), ocp.args.Composite(**items, metadata=ocp.args.JsonSave(about)))
    except OSError as error:
        raise failed("it cannot be written", path, error, saved="") from error


def _read_safetensors(path: Path) -> State:
    safetensors = import_package("safetensors", "export", "A .safetensors file")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            leaves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is not a mapping
    except safetensors.SafetensorError as error:
        raise bad_value("start", str(path), f"not a whole .safetensors file ({error})", "Export it again") from error
    if _FORMAT not in metadata:
        return as_state(leaves)
    keys = json.loads(metadata[_KEYS])
    leaves |= _wrap_keys(leaves, keys)
    params = {name: leaf for name, leaf in leaves.items() if not name.startswith(_AUX)}
    aux = {name.removeprefix(_AUX): leaf for name, leaf in leaves.items() if name.startswith(_AUX)}
    return State(params, aux or None, None)


def _read_orbax(path: Path) -> State:
    ocp = import_package("orbax.checkpoint", "export", "An Orbax checkpoint", "orbax-checkpoint")
    items = {name: ocp.args.StandardRestore() for name in State._fields if (path / name).is_dir()}
    if "params" not in items or not (path / "metadata").is_dir():
        remedy = "Export it again: result.export, or read it with Orbax and pass the params"
        raise bad_value("start", str(path), "not a whole Orbax checkpoint with params and metadata", remedy)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            arguments = ocp.args.Composite(**items, metadata=ocp.args.JsonRestore())
            stored = checkpointer.restore(path.absolute(), arguments)
    except (OSError, ValueError, KeyError) as error:
        raise bad_value("start", str(path), f"not a whole Orbax checkpoint ({error})", "Export it again") from error
    keys = stored["metadata"].get(_KEYS, {})
    leaves = {name: name_leaves(stored[name]) for name in items}
    parts = {name: own | _wrap_keys(own, keys.get(name, {})) for name, own in leaves.items()}
    return State(parts["params"], parts.get("aux"), parts.get("opt_state"))


def _read_npz(path: Path) -> State:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return as_state({name: file[name] for name in file.files})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise bad_value("start", str(path), f"not a whole .npz file of numbers ({error})", "Write it again") from error


def _list_keys(leaves: Mapping[str, Any]) -> dict[str, str]:
    """The implementations of typed keys among leaves, by their names."""
    return {name: str(jax.random.key_impl(leaf)) for name, leaf in leaves.items() if is_key(leaf)}


def _wrap_keys(leaves: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """The typed keys whose data are among leaves."""
    return {name: jax.random.wrap_key_data(jnp.asarray(leaves[name]), impl=impl) for name, impl in keys.items()}
