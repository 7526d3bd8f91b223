"""How the shipped models are trained: networks, data, a method and settings for the loop of `fewstep.training`.

done = train_digits(DigitsRecipe(), "runs/digits.safetensors")         # the same call goes on after an interruption
vae = train_autoencoder(AUTOENCODER, Path("runs/autoencoder"))
model = train_text_to_image(SCENES, vae, Path("runs/scenes"), scenes=122880, reading=1500)
"""

from fewstep.recipes.autoencoder import AUTOENCODER, train_autoencoder
from fewstep.recipes.classifier import CLASSIFIER, train_classifier
from fewstep.recipes.digits import DigitsRecipe, DigitsTraining, train_digits
from fewstep.recipes.text_to_image import SCENES, TextToImage, train_text_to_image

__all__ = [
    "AUTOENCODER",
    "CLASSIFIER",
    "SCENES",
    "DigitsRecipe",
    "DigitsTraining",
    "TextToImage",
    "train_autoencoder",
    "train_classifier",
    "train_digits",
    "train_text_to_image",
]
