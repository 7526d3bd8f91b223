"""What a checkpoint is: one `Model`, however it was loaded and whatever it is conditioned on."""

from fewstep.models.adapted import bases
from fewstep.models.bare import is_bare
from fewstep.models.cache import CacheCounts, TensorCache
from fewstep.models.codec import digest_of
from fewstep.models.conditioner import Condition, Conditions, NoEffect
from fewstep.models.encoder import TruncatedPrompt
from fewstep.models.identity import Identity
from fewstep.models.loading import Files, NetworkSpec, load_bare, load_model, place_of, recommended_by
from fewstep.models.model import Model, check_lora
from fewstep.models.plans import check_tuned_for, learned_plans, preset_for, with_tuned_plan
from fewstep.models.statements import PREDICTIONS, Claims
from fewstep.models.weaker import check_weaker, weaker_of

__all__ = [
    "PREDICTIONS",
    "CacheCounts",
    "Claims",
    "Condition",
    "Conditions",
    "Files",
    "Identity",
    "Model",
    "NetworkSpec",
    "NoEffect",
    "TensorCache",
    "TruncatedPrompt",
    "bases",
    "check_lora",
    "check_tuned_for",
    "check_weaker",
    "digest_of",
    "is_bare",
    "learned_plans",
    "load_bare",
    "load_model",
    "place_of",
    "preset_for",
    "recommended_by",
    "weaker_of",
    "with_tuned_plan",
]
