import struct

import cv2
import numpy as np
import pytest

from edgejoule_agent.errors import ImageError, ModelError
from edgejoule_agent.preprocess import decode, place, prepare


def test_decode_gives_rgb():
    red = np.zeros((4, 5, 3), dtype=np.uint8)
    red[:, :, 0] = 255
    image = decode(cv2.imencode(".png", red[:, :, ::-1])[1].tobytes())
    assert image.shape == (4, 5, 3)
    assert (image == red).all()


def test_decode_ignores_the_exif_rotation():
    jpeg = cv2.imencode(".jpg", np.zeros((10, 20, 3), dtype=np.uint8))[1].tobytes()
    # one IFD entry: tag 0x0112 (orientation), type short, count 1, value 6 (turned by 90 degrees)
    tiff = b"MM\x00*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\x00\x00" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (20, 10, 3)
    assert decode(turned).shape == (10, 20, 3)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0"])
def test_decode_refuses_what_is_no_image(content):
    with pytest.raises(ImageError, match=f"image of {len(content)} bytes cannot be decoded"):
        decode(content)


@pytest.mark.parametrize("alignment", ["half_pixel", "corner"])
@pytest.mark.parametrize("policy", ["stretch", "letterbox_centre", "letterbox_top_left"])
@pytest.mark.parametrize(("height", "width"), [(100, 60), (60, 100), (7, 9), (32, 48), (1, 500)])
def test_prepare_places_the_image_where_its_frame_says(manifest, policy, alignment, height, width):
    manifest["resize"].update(policy=policy, alignment=alignment)
    image = np.full((height, width, 3), 200, dtype=np.uint8)
    tensor, frame = prepare(image, manifest)
    assert tensor.shape == (1, 3, 32, 48)
    assert tensor.dtype == np.float32
    assert tensor.flags["C_CONTIGUOUS"]
    inside = tensor[0, 0] == 200
    top, left = frame.offset_y, frame.offset_x
    bottom, right = top + frame.scale_y * height, left + frame.scale_x * width
    assert right <= 48 + 1e-9
    assert bottom <= 32 + 1e-9
    # at corner alignment the border pixels, as wide as the scale, are mixed with the fill
    mixed_x, mixed_y = 1 + max(1, frame.scale_x), 1 + max(1, frame.scale_y)
    rows, columns = np.arange(32), np.arange(48)
    outside = ((rows < top - mixed_y) | (rows > bottom))[:, None] | (columns < left - mixed_x) | (columns > right)
    core = ((rows >= top) & (rows <= bottom - mixed_y))[:, None] & (columns >= left) & (columns <= right - mixed_x)
    assert inside[core].all()
    assert (tensor[0][:, outside].T == [1, 2, 3]).all()


def test_prepare_keeps_rgb_order_and_range(manifest):
    image = np.zeros((32, 48, 3), dtype=np.uint8)
    image[:] = (250, 20, 3)
    tensor, _ = prepare(image, manifest)
    assert tensor[0, :, 0, 0].tolist() == [250, 20, 3]


@pytest.mark.parametrize(("height", "width"), [(480, 640), (333, 500), (640, 427)])
def test_corner_letterbox_equals_nanodets_chain_of_matrices(manifest, height, width):
    manifest["resize"].update(alignment="corner", fill_rgb=[0, 0, 0])
    manifest["input"] = {"height": 320, "width": 320}
    image = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
    # centre to the origin, scale by the smaller ratio, origin to the centre of the input
    scale = min(320 / width, 320 / height)
    to_origin = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    matrix = np.array([[1, 0, 160], [0, 1, 160], [0, 0, 1]]) @ np.diag([scale, scale, 1]) @ to_origin
    wanted = cv2.warpPerspective(image, matrix, (320, 320)).transpose(2, 0, 1)
    difference = np.abs(prepare(image, manifest)[0][0] - wanted)
    assert np.percentile(difference, 99.5) <= 2  # both round positions to 1/32 of a pixel, not always alike


@pytest.mark.parametrize("alignment", ["half_pixel", "corner"])
def test_alignment_maps_pixel_centres_or_indices(manifest, alignment):
    manifest["resize"].update(policy="stretch", alignment=alignment)
    manifest["input"] = {"height": 64, "width": 64}
    ramp = np.tile(np.arange(0, 128, 2, dtype=np.uint8).repeat(2), (128, 1))  # 128 columns: 0 0 2 2 4 4 ...
    tensor, _ = prepare(np.dstack([ramp] * 3), manifest)
    column = np.arange(64)
    source = 2 * column + 0.5 if alignment == "half_pixel" else 2.0 * column
    wanted = np.interp(source, np.arange(128), ramp[0])
    assert np.abs(tensor[0, 0, 10, 1:-1] - wanted[1:-1]).max() <= 1


def test_prepare_refuses_area_at_corners(manifest):
    manifest["resize"].update(alignment="corner", interpolation="area")
    with pytest.raises(ModelError, match="cannot be aligned at corners"):
        prepare(np.zeros((5, 5, 3), dtype=np.uint8), manifest)


@pytest.mark.parametrize("policy", ["stretch", "letterbox_centre", "letterbox_top_left"])
def test_to_original_undoes_the_placing(manifest, policy):
    manifest["resize"]["policy"] = policy
    frame = place(640, 427, manifest)
    boxes = np.array([[0.0, 0.0, 640.0, 427.0], [13.0, 20.0, 100.0, 400.0]])
    scale = np.array([frame.scale_x, frame.scale_y] * 2)
    offset = np.array([frame.offset_x, frame.offset_y] * 2)
    fractions = (boxes * scale + offset) / np.array([48, 32, 48, 32])
    assert np.allclose(frame.to_original(fractions), boxes)


@pytest.mark.parametrize("alignment", ["half_pixel", "corner"])
def test_stretched_image_has_no_border_when_it_is_enlarged(manifest, alignment):
    manifest["resize"].update(policy="stretch", alignment=alignment, fill_rgb=[0, 0, 0])
    tensor, _ = prepare(np.full((7, 9, 3), 200, dtype=np.uint8), manifest)
    assert (tensor == 200).all()
