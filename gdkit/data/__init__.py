"""Host data: batches of NumPy arrays by seed and step, for `Problem.batches`.

A source is a pure function ``(seed, t) -> batch``. Because any batch can be read by itself, runs resume, replay and
extend with the same bits as with data on the device, and the memory of a run depends neither on its steps nor on the
size of the source. Sources are called from several threads.
"""

from gdkit.data.batches import BatchFunction, BatchWindow, Source, select_batch
from gdkit.data.shuffling import epoch_rows
from gdkit.data.sources import GrainDataset, MapDataset, from_arrays, from_grain, from_map_dataset

__all__ = [
    "BatchFunction",
    "BatchWindow",
    "GrainDataset",
    "MapDataset",
    "Source",
    "epoch_rows",
    "from_arrays",
    "from_grain",
    "from_map_dataset",
    "select_batch",
]
