"""Training images onto the network's input: one affine map, a flip, brightness and contrast.

Geometry is the detector's own resize (edgejoule_agent.preprocess.place) with a random zoom and shift on top;
boxes go through the same matrix as pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgejoule.records import InputSize, Resize
from edgejoule_agent.preprocess import place


@dataclass(frozen=True)
class Augmentation:
    """Ranges to draw from; the defaults are the paper's (its Table 5).

    flip: probability of a mirror image. zoom: factor on the letter-boxed size. jitter: greatest relative
    change of brightness and of contrast. A zoom above 1 leaves a random crop of the input's size.
    """

    flip: float = 0.5
    zoom: tuple[float, float] = (0.5, 1.5)
    jitter: float = 0.2


NONE = Augmentation(flip=0.0, zoom=(1.0, 1.0), jitter=0.0)
MIN_SIDE_PX = 2.0  # a box cut to less than this teaches nothing
MIN_VISIBLE = 0.25  # nor does one of which less than this share is left


def augment(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    resize: Resize,
    input_size: tuple[int, int],
    how: Augmentation,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """One training view.

    Args:
        image: uint8[h, w, 3], RGB.
        boxes: float32[n, 4], x1, y1, x2, y2 in its pixels.
        resize: how the detector fits a frame into its input.
        input_size: (height, width) of the network's input.

    Returns:
        float32[3, height, width] RGB 0-255; float32[n, 4] boxes in its pixels, clipped; bool[n], which to keep.
    """
    height, width = input_size
    rows, columns = image.shape[:2]
    layout = {"resize": resize.model_dump(), "input": InputSize(height=height, width=width).model_dump()}
    frame = place(columns, rows, layout)
    zoom = rng.uniform(*how.zoom)
    scale = zoom * np.array([frame.scale_x, frame.scale_y])
    shift = np.array([frame.offset_x, frame.offset_y])
    if how.zoom != NONE.zoom:
        shift = (np.array([width, height]) - scale * (columns, rows)) * rng.uniform(size=2)
    mirrored = rng.uniform() < how.flip
    # where pixel centres are mapped, half a pixel of the source is not half a pixel of the input
    centre = shift + (0.5 * (scale - 1) if resize.alignment == "half_pixel" else 0.0)
    matrix = np.array([[scale[0], 0, centre[0]], [0, scale[1], centre[1]]])
    if mirrored:
        matrix[0] = -scale[0], 0, width - 1 - centre[0]
    view = cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=resize.fill_rgb,
    ).astype(np.float32)
    if how.jitter:
        contrast, brightness = 1 + rng.uniform(-how.jitter, how.jitter, size=2)
        mean = view.mean()
        view = np.clip((view - mean) * contrast + mean * brightness, 0, 255, dtype=np.float32)

    placed = boxes * np.tile(scale, 2) + np.tile(shift, 2)
    if mirrored:
        placed[:, [0, 2]] = width - placed[:, [2, 0]]
    clipped = np.clip(placed, 0, np.array([width, height, width, height], np.float32)).astype(np.float32)
    sides = clipped[:, 2:] - clipped[:, :2]
    visible = sides.prod(axis=1) / np.maximum((placed[:, 2:] - placed[:, :2]).prod(axis=1), 1e-6)
    keep = (sides >= MIN_SIDE_PX).all(axis=1) & (visible >= MIN_VISIBLE)
    return np.ascontiguousarray(view.transpose(2, 0, 1)), clipped, keep
