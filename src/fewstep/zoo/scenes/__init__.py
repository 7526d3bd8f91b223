"""Pictures of coloured shapes with captions: drawn, described, checked, and a small text-to-image model of them."""

from fewstep.zoo.scenes.prompts import Prompt, adherence, held_out_prompts
from fewstep.zoo.scenes.scene import SIZE

__all__ = ["SIZE", "Prompt", "adherence", "held_out_prompts"]
