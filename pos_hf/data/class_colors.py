"""How well colour alone tells the labeled classes apart; where it does, strong views should not change it."""

import numpy as np

COLORS, GREYS = 512, 16  # 8 levels of each of red, green and blue; 16 of their mean
SEPARABLE = 0.9  # balanced accuracy
FEW_PIXELS = 64  # of a class in one half of the images: it is not judged
STEP = 2  # every second pixel of every second row


class ClassColors:
    """Histograms of every class, of every second image apart: one half judges the other.

    Args:
        num_classes: Ids are 0 to num_classes - 1; others are passed over.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.num_images = 0
        self.colors = np.zeros((2, num_classes, COLORS))
        self.greys = np.zeros((2, num_classes, GREYS))

    def add(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Count an image's pixels; images of other than three channels, or another size, are passed over.

        Args:
            image: uint8 [H, W, 3].
            mask: Class ids, uint8 [H, W].
        """
        if image.shape != (*mask.shape, 3):
            return
        pixels = image[::STEP, ::STEP].reshape(-1, 3).astype(np.int64)
        ids = mask[::STEP, ::STEP].ravel().astype(np.int64)
        pixels, ids = pixels[ids < self.num_classes], ids[ids < self.num_classes]
        half = self.num_images % 2
        self.num_images += 1
        bins = (pixels >> 5) @ [64, 8, 1]
        self.colors[half] += self._counts(ids, bins, COLORS)
        self.greys[half] += self._counts(ids, pixels.sum(1) * GREYS // 766, GREYS)

    def join(self, later: "ClassColors") -> None:
        """Count what was counted in the images that follow."""
        halves = [0, 1] if self.num_images % 2 == 0 else [1, 0]
        self.colors += later.colors[halves]
        self.greys += later.greys[halves]
        self.num_images += later.num_images

    def _counts(self, ids: np.ndarray, bins: np.ndarray, num_bins: int) -> np.ndarray:
        counts = np.bincount(ids * num_bins + bins, minlength=self.num_classes * num_bins)
        return counts.reshape(self.num_classes, num_bins)

    def separability(self) -> float:
        """Share of pixels whose class their colour tells, classes weighed equally; 0 if too few are known."""
        return _balanced_accuracy(self.colors)

    def line(self) -> str:
        """The line of the config to propose, or nothing."""
        if self.separability() < SEPARABLE:
            return ""
        kind = "gentle" if _balanced_accuracy(self.greys) >= SEPARABLE else "no_color"
        return f"strong_views: {kind}"


def _balanced_accuracy(counts: np.ndarray) -> float:
    """Judge each half by the likeliest class of each bin in the other one; counts [2, classes, bins]."""
    known = (counts.sum(2) >= FEW_PIXELS).all(0)
    if known.sum() < 2:
        return 0.0
    shares = counts[:, known] / counts[:, known].sum(2, keepdims=True)
    accuracies = []
    for judge, judged in ((0, 1), (1, 0)):
        likeliest = shares[judge].argmax(0)
        hits = shares[judged][likeliest, np.arange(counts.shape[2])] * (shares[judge].max(0) > 0)
        accuracies.append(hits.sum() / known.sum())
    return float(np.mean(accuracies))
