"""A mask from an exported model, with onnxruntime, numpy and Pillow alone: what else it takes is in the file.

python scripts/examples/onnx_predict.py model.onnx photo.jpg mask.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def main(model: str, photo: str, mask: str) -> None:
    """Write the class id of every pixel of a photo, and print the classes that it shows."""
    session = onnxruntime.InferenceSession(model)
    facts = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    image = np.atleast_3d(np.asarray(Image.open(photo), np.float32))  # [height, width, channels]
    if facts["bands"]:
        image = image[..., [band - 1 for band in facts["bands"]]]
    low, high = facts["image_range"] or (0, 255)
    image = ((image - low) / (high - low)).clip(0, 1)
    pixels = ((image - facts["image_mean"]) / facts["image_std"]).astype(np.float32).transpose(2, 0, 1)[None]
    (logits,) = session.run(["logits"], {"pixel_values": pixels})  # [1, classes, height, width]
    ids = logits[0].argmax(0).astype(np.uint8)
    Image.fromarray(ids).save(mask)
    print([facts["class_names"][id] for id in np.unique(ids)])


if __name__ == "__main__":
    main(*sys.argv[1:])
