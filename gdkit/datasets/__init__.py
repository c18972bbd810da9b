"""Data sets: scikit-learn's by name, files, and arrays; split by a key, and standardized.

All arrays are NumPy arrays: data are on no device before they become the argument of a program.
"""

from gdkit.datasets.dataset import SPLIT, TASKS, Dataset
from gdkit.datasets.loading import DataLike, load, names

__all__ = ["SPLIT", "TASKS", "DataLike", "Dataset", "load", "names"]
