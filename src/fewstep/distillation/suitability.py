"""Whether a teacher suits a method, asked before anything is drawn."""

from __future__ import annotations

from fewstep.core.errors import InvalidInput
from fewstep.distillation.pictures.teacher import Teacher
from fewstep.drawing import Guidance
from fewstep.measure.features import Features
from fewstep.pipeline import Pipeline
from fewstep.training import Method, without_data

TAKE_DATA = ("progressive", "guidance", "consistency", "lcm", "dmd with adversary", "add", "policy", "scm", "meanflow")
"""The methods that learn from real pictures, for words."""


def check(method: Method, pipe: Pipeline) -> None:
    """Raise `InvalidInput` where a method cannot teach a student of this pipeline, before anything is drawn."""
    model, needs = pipe.model, method.needs
    if model.conditioner.distilled and not (needs.told and model.teacher is not None and model.teacher.scales):
        raise InvalidInput(
            f"{model.name} is told its guidance scale, and was distilled already: give the model that it was made "
            "from, or halve the steps of a student of `fewstep distill guidance` by progressive"
        )
    if model.rows:
        raise InvalidInput(
            f"{model.name} {model.rows}, and was distilled already: give the model that it was made from"
        )
    if needs.predictions is not None and model.prediction not in needs.predictions:
        *most, last = needs.predictions
        known = f"{', '.join(most)} or {last}" if most else last
        raise InvalidInput(
            f"{method.name} needs a network that predicts {known}, and {model.name} predicts {model.prediction}: use "
            "regression or consistency, which take any"
        )
    method.plan(model.denoiser())


def check_takes_data(method: Method) -> None:
    """Raise `InvalidInput` for real pictures where a method has no use for them."""
    why = without_data(method)
    if why:
        raise InvalidInput(
            f"{method.name} takes no real pictures, as {why}. Leave data out, or use one of the methods that take "
            f"them: {', '.join(TAKE_DATA)}"
        )


def check_guidance(method: Method, teacher: Teacher) -> None:
    """Raise `InvalidInput` where a method asks the teacher for guidance that training does not know."""
    guidance = teacher.order.drawing.guidance
    if not method.needs.pairs and guidance not in (Guidance(guidance.scale), Guidance(1.0)):
        raise InvalidInput(
            f"{method.name} asks the teacher at levels of its own, by classifier-free guidance at every level, and "
            f"{teacher.pipe.model.name} recommends {guidance.method} from {guidance.interval[0]:g} to "
            f"{guidance.interval[1]:g} in sigma / alpha: use regression, which learns from what the teacher draws"
        )


def check_noise(method: Method, teacher: Teacher) -> None:
    """Raise `InvalidInput` where a method learns which noise becomes which picture of a teacher that draws more noise
    on the way: the noise alone does not say which, and the student would learn their mean.
    """
    plan, model = teacher.order.plan, teacher.pipe.model
    if not (method.needs.pairs and plan.stochastic):
        return
    how = (
        "give steps, in which it draws by ddim"
        if "plan" in model.recommended.get("sampling", {})
        else "have it recommend another"
    )
    raise InvalidInput(
        f"{method.name} learns which noise becomes which picture, and {model.name} draws noise of its own between its "
        f"rows, by {plan.recipe.sampler}: {how}, or use a method that learns from no pairs, such as consistency or dmd"
    )


def check_seen(method: Method, pipe: Pipeline, judge: Features) -> None:
    """Raise `InvalidInput` where a loss would see what the student is judged by, or latents as if they were pictures.

    `judge` are the features that distances are measured on.
    """
    eyes = getattr(method, "eyes", None)
    if eyes is None:
        return
    if tuple(pipe.pixel_shape()) != tuple(pipe.state_shape()) or pipe.model.codec.value_range != (-1.0, 1.0):
        raise InvalidInput(
            f"{method.name} would show latents of {pipe.model.name} to a network for pictures: use features=teacher, "
            "which looks at them as they are"
        )
    if eyes.digest == judge.digest:
        raise InvalidInput(
            f"the discriminator of {method.name} would see the features of the {judge.name}, which the student is "
            "judged by, so that the figure says nothing: give other features, or judge by others (clip=)"
        )


def scales_of(method: Method, teacher: Teacher) -> tuple[float, float] | None:
    """The guidance scales that a student is told: those that the method names, or that the teacher is told already.

    Raises `InvalidInput` where the teacher's pictures have a scale that is not among them, or none to guide by.
    """
    facts, own = teacher.pipe.model.teacher, getattr(method, "scales", None)
    scales = facts.scales if own is None and facts is not None else own
    if scales is None:
        return None
    if own is not None and not teacher.guides:
        raise InvalidInput(
            f"{method.name} learns guidance, and {teacher.pipe.model.name} at guidance {teacher.guidance:g} has none "
            "to learn from: give guidance above 1, and a model of classes or prompts"
        )
    if not scales[0] <= teacher.guidance <= scales[1]:
        raise InvalidInput(
            f"the student is told guidance from {scales[0]:g} to {scales[1]:g}, and the teacher's pictures have "
            f"{teacher.guidance:g}: give a scale between these"
        )
    return scales


def original_of(pipe: Pipeline) -> str:
    """The model that takes any guidance: that of a pipeline, or the teacher of one that is told its scale."""
    told = pipe.model.teacher
    return told.name if told is not None and told.scales else pipe.model.name
