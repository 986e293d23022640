"""A page to try a model on: drop an image, see its mask with a legend, and how sure the model is.

`pos-hf app` opens it, and `pos-hf push --space` sends this very file, which a Space runs. Which files go
along is in `space`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from PIL import Image

from pos_hf.errors import InputError, TrainingStopped, first_sentence
from pos_hf.evaluation import Inference, label_names, load_for_inference, palette_of, predict_confident
from pos_hf.evaluation.loading import decoder_for
from pos_hf.models.processors import num_channels
from pos_hf.reporting.pictures import displayed, overlay, with_legend

SETTINGS = "space.json"
"""In a Space, beside this file: `model` and `trust_remote_code`."""
COLUMNS = ("class", "pixels in %", "mean confidence in %")
BUTTONS = ["fullscreen", "download"]  # none that shares a picture

Answer = tuple[Image.Image, Image.Image, list[list[Any]]]


class TriedModel:
    """Loads a model once and answers for one image file after the other.

    Args:
        name_or_path: a folder of training, or a Hub id.
        trust_remote_code: run the code that it brings along.
        inference: how an image is predicted; None predicts it whole.
        subfolder: where in it the model lies.

    Raises:
        InputError: there is no such model.
    """

    def __init__(
        self,
        name_or_path: str,
        trust_remote_code: bool = False,
        inference: Inference | None = None,
        subfolder: str = "",
    ) -> None:
        device = PartialState().device
        self.model, self.image_processor = load_for_inference(
            name_or_path, device, trust_remote_code, subfolder
        )
        self.decoder = decoder_for(self.model, self.image_processor)
        self.names, self.palette = list(label_names(self.model).values()), palette_of(self.model)
        self.inference = inference
        self.title = Path(name_or_path).name

    def answer(self, file: str) -> Answer:
        """Predict an image.

        Args:
            file: its path.

        Returns:
            The image under its mask with a legend, the confidence as a grey picture (white is sure), and of
            each predicted class name, share of the pixels and mean confidence in percent, by their share.

        Raises:
            InputError: the file is no image, or not like those that the model was trained on.
            TrainingStopped: it does not fit into memory.
        """
        image = self.decoder.image({"path": file, "bytes": None})
        ((ids, confidence),) = predict_confident(self.model, [image], self.image_processor, self.inference)
        picture = with_legend(overlay(displayed(image), ids, self.palette), ids, self.names, self.palette)
        found, counts = np.unique(ids, return_counts=True)
        by_share = sorted(zip(counts.tolist(), found.tolist(), strict=True), reverse=True)
        rows: list[list[Any]] = [
            [
                self.names[id],
                round(100 * count / ids.size, 1),
                round(100 * float(confidence[ids == id].mean()), 1),
            ]
            for count, id in by_share
        ]
        return picture, Image.fromarray(np.uint8(255 * confidence)), rows


def make_page(tried: TriedModel) -> Any:
    """The page, a `gradio.Interface` that is yet to be launched."""
    import gradio

    def answer(file: str | None) -> Answer:
        if file is None:
            raise gradio.Error("drop an image first")
        try:
            return tried.answer(file)
        except (InputError, TrainingStopped) as error:
            raise gradio.Error(first_sentence(error)) from error

    is_shown = num_channels(tried.model) == 3  # a browser shows no others
    # image_mode None: the file as it was dropped, not one that gradio has compressed anew
    dropped = gradio.Image(type="filepath", image_mode=None) if is_shown else gradio.File()
    dropped.label = "Image"
    return gradio.Interface(
        answer,
        dropped,
        [
            gradio.Image(label="Mask", format="png", buttons=BUTTONS),
            gradio.Image(label="Confidence (white is sure)", format="png", buttons=BUTTONS),
            gradio.Dataframe(headers=list(COLUMNS), label="Classes"),
        ],
        title=tried.title,
        api_name="predict",
        flagging_mode="never",
        analytics_enabled=False,
    )


if __name__ == "__main__":
    settings = json.loads(Path(__file__).with_name(SETTINGS).read_text())
    make_page(TriedModel(settings["model"], settings["trust_remote_code"])).launch()
