"""From encoded bytes to the network's input, one piece of code for calibration, evaluation and deployment."""

from typing import Any, List, Mapping, NamedTuple, Tuple

import cv2
import numpy as np

from edgejoule_agent.errors import ImageError, ModelError

INTERPOLATIONS = {
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "bicubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}


class Frame(NamedTuple):
    """Where the original image lies in the network's input: ``input = scale * original + offset``, in pixels."""

    width: int
    height: int
    input_width: int
    input_height: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def to_original(self, boxes: Any) -> Any:
        """Boxes [n,4] (x1,y1,x2,y2, fractions of the input, padding included) in pixels of the original, float64."""
        size = np.array([self.input_width, self.input_height] * 2, dtype=np.float64)
        offset = np.array([self.offset_x, self.offset_y] * 2)
        scale = np.array([self.scale_x, self.scale_y] * 2)
        return (boxes * size - offset) / scale


def decode(content: bytes) -> Any:
    """Encoded image to uint8[height,width,3], RGB; any EXIF rotation is ignored, as COCO's boxes expect.

    Raises:
        ImageError: not an image that OpenCV can read.
    """
    try:
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # empty content, or more pixels than OpenCV's limit
        raise ImageError(f"image of {len(content)} bytes cannot be decoded ({error.err})") from error
    if bgr is None:
        raise ImageError(f"image of {len(content)} bytes cannot be decoded; it is damaged or of an unknown format")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def place(width: int, height: int, manifest: Mapping[str, Any]) -> Frame:
    """Where an image of this size lies in the input that the model's manifest describes."""
    resize = manifest["resize"]
    input_width, input_height = manifest["input"]["width"], manifest["input"]["height"]
    scale_x, scale_y = input_width / width, input_height / height
    if resize["policy"] == "stretch":
        return Frame(width, height, input_width, input_height, scale_x, scale_y, 0.0, 0.0)
    scale = min(scale_x, scale_y)
    centred = resize["policy"] == "letterbox_centre"
    if resize["alignment"] == "corner":
        spare_x, spare_y = input_width - scale * width, input_height - scale * height
        offsets = (spare_x / 2, spare_y / 2) if centred else (0.0, 0.0)
        return Frame(width, height, input_width, input_height, scale, scale, *offsets)
    # whole pixels are resized, so the true scale differs a little by axis
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = ((input_width - inner_width) // 2, (input_height - inner_height) // 2) if centred else (0, 0)
    return Frame(
        width, height, input_width, input_height, inner_width / width, inner_height / height, float(left), float(top)
    )


def prepare(image: Any, manifest: Mapping[str, Any]) -> Tuple[Any, Frame]:
    """An RGB image uint8[h,w,3] as the network's input float32[1,3,H,W], RGB 0-255, and its frame.

    Raises:
        ModelError: the manifest asks for a resize that has no meaning (area averaging aligned at corners).
    """
    resize = manifest["resize"]
    interpolation = INTERPOLATIONS[resize["interpolation"]]
    frame = place(image.shape[1], image.shape[0], manifest)
    fill = tuple(resize["fill_rgb"])
    if resize["alignment"] == "corner":
        if resize["interpolation"] == "area":
            raise ModelError("resize: interpolation 'area' cannot be aligned at corners; use bilinear or half_pixel")
        matrix = np.array([[frame.scale_x, 0, frame.offset_x], [0, frame.scale_y, frame.offset_y]], dtype=np.float64)
        size = (frame.input_width, frame.input_height)
        # a stretched image has no border: beyond its last pixel an enlarged one goes on as it is
        border = cv2.BORDER_REPLICATE if resize["policy"] == "stretch" else cv2.BORDER_CONSTANT
        canvas = cv2.warpAffine(image, matrix, size, flags=interpolation, borderMode=border, borderValue=fill)
    else:
        inner_width, inner_height = round(frame.width * frame.scale_x), round(frame.height * frame.scale_y)
        left, top = int(frame.offset_x), int(frame.offset_y)
        canvas = cv2.copyMakeBorder(
            cv2.resize(image, (inner_width, inner_height), interpolation=interpolation),
            top,
            frame.input_height - inner_height - top,
            left,
            frame.input_width - inner_width - left,
            cv2.BORDER_CONSTANT,
            value=fill,
        )
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32), frame


def stack(images: List[Any]) -> Any:
    """Prepared images, each float32[1,3,H,W], as one batch float32[B,3,H,W]; one alone is not copied."""
    return images[0] if len(images) == 1 else np.concatenate(images)
