"""Results on disk: a run directory, written tile by tile, that survives a kill at any instant; and netCDF files.

``docs/format.md`` specifies the files of a run directory. There are no locks: the manifest is written once, and every
process reads the partition from it; tiles never change, and equal runs write equal ones.
"""

from gdkit.store.arrays import Kind as Kind
from gdkit.store.arrays import digest as digest
from gdkit.store.claims import STALE as STALE
from gdkit.store.claims import Claim as Claim
from gdkit.store.columns import Columns as Columns
from gdkit.store.manifest import Manifest as Manifest
from gdkit.store.manifest import differences as differences
from gdkit.store.netcdf import FORMAT as FORMAT
from gdkit.store.netcdf import REMEDY as REMEDY
from gdkit.store.netcdf import RESULTS as RESULTS
from gdkit.store.netcdf import holds_run as holds_run
from gdkit.store.netcdf import load as load
from gdkit.store.netcdf import save as save
from gdkit.store.netcdf import unusable_results as unusable_results
from gdkit.store.partition import Partition as Partition
from gdkit.store.partition import StoredGroup as StoredGroup
from gdkit.store.partition import make_group as make_group
from gdkit.store.paths import extension_folder as extension_folder
from gdkit.store.paths import extension_folders as extension_folders
from gdkit.store.status import Status as Status
from gdkit.store.store import Store as Store
from gdkit.store.store import StoredCarry as StoredCarry
from gdkit.store.store import StoredTile as StoredTile
from gdkit.store.store import open_with_extensions as open_with_extensions
from gdkit.store.store import run_digest as run_digest
