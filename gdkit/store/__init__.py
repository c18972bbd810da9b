"""Results on disk: a run directory, written tile by tile, that survives a kill at any instant; and netCDF files.

``docs/format.md`` specifies the files of a run directory. There are no locks: the manifest is written once, and every
process reads the partition from it; tiles never change, and equal runs write equal ones.
"""

from gdkit.store.arrays import Kind, digest
from gdkit.store.claims import STALE, Claim
from gdkit.store.columns import Columns
from gdkit.store.manifest import Manifest, differences
from gdkit.store.netcdf import FORMAT, REMEDY, RESULTS, holds_run, load, save, unusable_results
from gdkit.store.partition import Partition, StoredGroup, make_group
from gdkit.store.paths import extension_folder, extension_folders
from gdkit.store.status import Status
from gdkit.store.store import Store, StoredCarry, StoredTile, open_with_extensions, run_digest

__all__ = [
    "FORMAT",
    "REMEDY",
    "RESULTS",
    "STALE",
    "Claim",
    "Columns",
    "Kind",
    "Manifest",
    "Partition",
    "Status",
    "Store",
    "StoredCarry",
    "StoredGroup",
    "StoredTile",
    "differences",
    "digest",
    "extension_folder",
    "extension_folders",
    "holds_run",
    "load",
    "make_group",
    "open_with_extensions",
    "run_digest",
    "save",
    "unusable_results",
]
