"""Small GeoTIFFs for tests. No test lives here."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

PLACE = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500000, 0, -10, 5200000)}


def write_geotiff(path: Path, values_HWC: np.ndarray, **options) -> None:
    """Write bands with a georeference; further options are rasterio's, like `nodata`."""
    height, width, count = values_HWC.shape
    layout = {"height": height, "width": width, "count": count, "dtype": values_HWC.dtype}
    with rasterio.open(path, "w", driver="GTiff", **layout, **PLACE, **options) as file:
        file.write(values_HWC.transpose(2, 0, 1))
