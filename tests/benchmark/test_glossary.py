"""What the figures of a bench mean."""

from fewstep.benchmark.glossary import MEANS, lacking, meaning


def test_only_figures_that_are_there_are_explained() -> None:
    assert list(meaning(["psnr", "error", "unheard"])) == ["error", "psnr"]


def test_a_figure_that_is_lacking_is_said_with_its_reason_and_what_it_is() -> None:
    said = lacking("distance", "64 images are too few")
    assert said == f"No column distance: 64 images are too few. It would be the {MEANS['distance']}."
    assert lacking("unheard", "why") == "No column unheard: why."
