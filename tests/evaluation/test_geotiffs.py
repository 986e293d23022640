"""GeoTIFFs are trained on, scored and predicted; their place and their gaps reach the masks."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from transformers import SegformerImageProcessorPil

from pos_hf.cli import evaluate, predict
from pos_hf.errors import InputError
from pos_hf.evaluation import geotiffs, load_for_inference, predict_confident
from pos_hf.evaluation import inference as inference_module
from pos_hf.evaluation.inference import Inference
from tests.rasters import PLACE, write_geotiff

from .tiny import save_segformer

NAMES = ["water", "wood", "town"]
RANGE = [0.0, 4000.0]
SIZE = (90, 70)  # height, width


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    options = {"do_resize": False, "image_mean": [0.5] * 4, "image_std": [0.25] * 4}
    processor = SegformerImageProcessorPil(**options, image_range=RANGE, bands=[4, 1, 2, 3])
    return save_segformer(tmp_path_factory.mktemp("model"), processor, NAMES, num_channels=4)


@pytest.fixture
def values():
    values = np.random.default_rng(0).integers(1, 4001, (*SIZE, 5)).astype(np.uint16)
    values[20:40, :25] = 0
    return values


def expected(model_folder, values, options):
    """Class ids and confidences of the plain array, read by the definition of the range."""
    pixels = np.floor(255 * (values[..., [3, 0, 1, 2]] / 4000) + 0.5).astype(np.uint8)
    model, processor = load_for_inference(model_folder, "cpu")
    return next(predict_confident(model, [pixels], processor, options))


@pytest.mark.parametrize("window", [None, 32])
def test_a_mask_lies_where_its_image_does_without_seams_and_is_ignored_where_it_has_no_data(
    model_folder, values, tmp_path, monkeypatch, window
):
    (tmp_path / "images").mkdir()
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "lzw"}
    write_geotiff(tmp_path / "images" / "a.tif", values, nodata=0, **tiles)
    ids, confidence = expected(model_folder, values, Inference(window=window))
    monkeypatch.setattr(inference_module, "STRIP_BYTES", 4 * len(NAMES) * SIZE[1] * 13)
    arguments = [model_folder, str(tmp_path / "images"), "--out", str(tmp_path / "out"), "--confidence"]
    arguments += [] if window is None else ["--window", str(window)]
    assert predict.main(arguments) == 0
    ids[20:40, :25] = 255
    with rasterio.open(tmp_path / "out" / "masks" / "a.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), ids)
        assert mask.crs == PLACE["crs"] and mask.transform == PLACE["transform"] and mask.nodata == 255
        assert mask.colormap(1)[2] == (20, 20, 30, 255)
    with rasterio.open(tmp_path / "out" / "confidence" / "a.tif") as shares:
        assert shares.transform == PLACE["transform"]
        np.testing.assert_allclose(shares.read(1), 255 * confidence, atol=1.01)
    with Image.open(tmp_path / "out" / "masks" / "a.tif") as mask:  # a mask that the package reads again
        np.testing.assert_array_equal(np.asarray(mask), ids)
    assert (tmp_path / "out" / "overlays" / "a.png").is_file()
    before = (tmp_path / "out" / "masks" / "a.tif").stat().st_mtime_ns
    assert predict.main(arguments) == 0  # nothing is left to do
    assert (tmp_path / "out" / "masks" / "a.tif").stat().st_mtime_ns == before
    (tmp_path / "out" / "made_by.json").unlink()
    with pytest.raises(InputError, match=r"masks/a\.tif' exists and is kept"):
        predict.main(arguments)


def test_of_a_large_image_never_all_rows_are_decoded(model_folder, values, tmp_path, monkeypatch):
    from pos_hf.data.decoding import RowDecoder

    write_geotiff(tmp_path / "a.tif", values)
    rows, part = [], RowDecoder.part

    def watched(decoder, stored, box):
        rows.append(box.bottom - box.top)
        return part(decoder, stored, box)

    monkeypatch.setattr(RowDecoder, "part", watched)
    monkeypatch.setattr(RowDecoder, "image", None)
    monkeypatch.setattr(geotiffs, "ROWS", 10)
    monkeypatch.setattr(geotiffs, "PREVIEW", 30)
    arguments = [model_folder, str(tmp_path / "a.tif"), "--out", str(tmp_path / "out"), "--window", "16"]
    assert predict.main(arguments) == 0 and max(rows) == 16
    with Image.open(tmp_path / "out" / "overlays" / "a.png") as overlay:
        assert overlay.width == 240 and overlay.height > 300  # 24 x 30 pixels, enlarged above the legend
    monkeypatch.setattr(predict, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="show it in parts with --window 512"):
        predict.main([*arguments[:3], str(tmp_path / "whole")])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_photographs_that_lie_somewhere_are_predicted_as_their_pictures(tmp_path, mode):
    options = {"do_resize": mode == "RGB", "size": {"height": 40, "width": 40}}
    folder = save_segformer(tmp_path / "model", SegformerImageProcessorPil(**options), NAMES)
    noise = np.random.default_rng(1).integers(0, 256, (30, 40, 4), dtype=np.uint8)
    noise[..., 3] = 255
    picture = Image.fromarray(noise).convert("RGB").convert(mode)
    picture = Image.fromarray(noise) if mode == "RGBA" else picture
    tags = {33550: (10.0, 10.0, 0.0), 33922: (0.0, 0.0, 0.0, 500000.0, 5200000.0, 0.0)}
    picture.save(tmp_path / "a.tif", tiffinfo=tags)
    assert predict.main([folder, str(tmp_path / "a.tif"), "--out", str(tmp_path / "out")]) == 0
    ((ids, _),) = predict_confident(
        load_for_inference(folder, "cpu")[0], [picture], load_for_inference(folder, "cpu")[1]
    )
    with rasterio.open(tmp_path / "out" / "masks" / "a.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), ids)
        assert mask.transform == PLACE["transform"]


def test_a_folder_of_geotiffs_is_scored(model_folder, values, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    write_geotiff(tmp_path / "images" / "a.tif", values, nodata=0)
    truth = np.random.default_rng(2).integers(0, 3, (*SIZE, 1)).astype(np.uint8)
    write_geotiff(tmp_path / "masks" / "a.tif", truth)
    assert evaluate.main([model_folder, str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    ids, _ = expected(model_folder, values, Inference())
    kept = values.any(-1)
    ious = [
        ((ids == id) & (truth[..., 0] == id) & kept).sum()
        / (((ids == id) | (truth[..., 0] == id)) & kept).sum()
        for id in range(3)
    ]
    saved = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert saved["mean_iou"] == pytest.approx(np.mean(ious))
