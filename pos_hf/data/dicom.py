"""Images of DICOM files, in the units that the file rescales them to; pydicom is an extra."""

from typing import Any

import numpy as np

from pos_hf.data.files import Stored, open_file, pass_on_exhaustion, require_package
from pos_hf.errors import FileInputError, InputError, first_sentence


def is_dicom(stored: Stored) -> bool:
    """Whether an image is a DICOM file; a dataset that holds the bytes themselves holds pictures."""
    return stored["bytes"] is None and str(stored["path"]).lower().endswith((".dcm", ".dicom"))


def dicom_size(path: str) -> tuple[int, int]:
    """Width and height; no pixel is decoded.

    Raises:
        InputError: As `read_dicom`.
    """
    return _read(path, lambda file: (int(file.Columns), int(file.Rows)), stop_before_pixels=True)


def read_dicom(path: str) -> np.ndarray:
    """Decode an image: Hounsfield units of a CT, or whatever the file's rescaling gives; bright is high.

    Returns:
        Values [H, W, 3], of a grey image three equal ones.

    Raises:
        InputError: It cannot be read, is a series of frames, or pydicom is missing.
    """
    return _read(path, lambda file: _pixels(file, path))


def _pixels(file: Any, path: str) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut

    if int(file.get("NumberOfFrames", 1)) > 1:
        raise FileInputError(path, f"holds {file.NumberOfFrames} frames: save each as a file of its own")
    values = file.pixel_array  # colours are converted to RGB
    if values.ndim == 3:
        return values
    values = apply_modality_lut(values, file)
    if file.PhotometricInterpretation == "MONOCHROME1":  # white is low
        values = values.max() + values.min() - values
    return np.repeat(values[..., None], 3, 2)


def _read(path: str, look: Any, **options: Any) -> Any:
    require_package("pydicom", "dicom", path)
    import pydicom

    try:
        with open_file(path) as file:
            return look(pydicom.dcmread(file, **options))
    except InputError:
        raise
    except Exception as error:  # pydicom and its decoders raise whatever a damaged file leads them to
        pass_on_exhaustion(error)
        raise FileInputError(
            path, f"cannot be read ({first_sentence(error)}): replace it", cause="unreadable"
        ) from error
