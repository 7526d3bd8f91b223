"""Data to train on: each data set is a function from the number of a sample to a picture and what it shows.

source = open_data("photos")                    # sub-folders of classes, or captions in metadata.jsonl
source.read(7).subject
"""

from fewstep.data.arrays import Arrays
from fewstep.data.folder import Folder
from fewstep.data.framing import framed, mirrored
from fewstep.data.opening import OWN, open_data
from fewstep.data.scenes import Scenes
from fewstep.data.shards import Shards
from fewstep.data.source import Sample, Source, Told, Unreadable
from fewstep.data.table import Table
from fewstep.data.tolerance import Skipped, Tolerant

__all__ = [
    "OWN",
    "Arrays",
    "Folder",
    "Sample",
    "Scenes",
    "Shards",
    "Skipped",
    "Source",
    "Table",
    "Told",
    "Tolerant",
    "Unreadable",
    "framed",
    "mirrored",
    "open_data",
]
