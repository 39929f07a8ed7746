"""Arrays in: synthetic data, bundled tables and the user's own file, brought to the sphere by a stated transform."""

from .assumption import Assumption1, check_assumption_1
from .bundled import load_bundled
from .dataset import Dataset, Split
from .encoding import Encoding
from .files import read_file, read_inputs
from .loading import describe_datasets, load
from .memory import split_of
from .synthetic import circles, sphere_teacher, teacher_outputs, two_spirals
from .table import Table
from .transform import Transform

__all__ = [
    "Assumption1",
    "Dataset",
    "Encoding",
    "Split",
    "Table",
    "Transform",
    "check_assumption_1",
    "circles",
    "describe_datasets",
    "load",
    "load_bundled",
    "read_file",
    "read_inputs",
    "sphere_teacher",
    "split_of",
    "teacher_outputs",
    "two_spirals",
]
