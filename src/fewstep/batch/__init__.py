"""Many images as one piece of work: files of prompts, a folder that a run fills and can go on with."""

from fewstep.batch.batch import Batch, Item
from fewstep.batch.folder import BatchReport, draw_batch
from fewstep.batch.prompts import PromptLine, read_prompts, subjects

__all__ = ["Batch", "BatchReport", "Item", "PromptLine", "draw_batch", "read_prompts", "subjects"]
