"""Pictures of the wild: upright RGB, or a failed sample that says why."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import decode_image, decode_label, image_format, image_size
from fourmill.manifests.modalities import modality

CAT = Image.fromarray(data.chelsea()).resize((90, 60))
PIXELS = np.asarray(CAT)


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def close(picture: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    assert picture.dtype == np.uint8
    assert picture.shape == expected.shape
    return float(np.abs(picture.astype(int) - expected).mean()) < tolerance


BROKEN = {
    "half a JPEG": (saved(CAT, "JPEG")[:1500], "truncated"),
    "half a PNG": (saved(CAT, "PNG")[:2000], "truncated"),
    "half a WebP": (saved(CAT, "WEBP")[:700], "decode"),
    "a letter": (b"dear reader, this is no photo", "neither JPEG, PNG nor WebP: 29 bytes"),
    "nothing": (b"", "neither JPEG, PNG nor WebP: 0 bytes"),
    "a GIF": (saved(CAT, "GIF"), "neither JPEG, PNG nor WebP"),
    "too large a PNG": (png_header(12_000, 12_000), "12000 x 12000 pixels are more than the limit"),
    "a bomb": (png_header(60_000, 60_000), "3600000000 pixels"),
    "too long a strip": (png_header(60_000, 3), "and of 32,767 a side"),
    "no height": (png_header(20, 0), "decode"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_whole_picture_of_a_sane_size_is_refused_with_the_reason(what):
    broken, reason = BROKEN[what]
    with pytest.raises(SampleError, match=reason) as caught:
        decode_image(broken)
    assert caught.value.stage == "decode"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_was_taken_sideways_comes_out_upright(name, orientation):
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    turned = CAT if undo is None else CAT.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = saved(turned, name, exif=exif.tobytes())
    assert close(decode_image(stored), PIXELS, 6)
    assert image_size(stored) == (60, 90)


def test_four_colours_of_print_become_three_of_light():
    assert close(decode_image(saved(CAT.convert("CMYK"), "JPEG", quality=95)), PIXELS, 6)


def test_a_grey_picture_has_three_equal_channels():
    grey = decode_image(saved(CAT.convert("L"), "PNG"))
    assert grey.shape == (60, 90, 3)
    assert (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1-bit key"])
def test_what_is_transparent_becomes_white(mode):
    see_through = CAT.convert("RGBA")
    see_through.paste((9, 9, 9, 0), (0, 0, 90, 20))
    if mode == "P":
        stored = saved(see_through.quantize(64), "PNG")
    elif mode == "1-bit key":
        solid = CAT.copy()
        solid.paste((9, 9, 9), (0, 0, 90, 20))
        stored = saved(solid, "PNG", transparency=(9, 9, 9))
    else:
        stored = saved(see_through.convert(mode), "PNG")
    picture = decode_image(stored)
    assert (picture[:20] == 255).all()
    assert picture[20:].mean() < 200


def test_sixteen_bits_are_scaled_to_eight_not_clipped():
    ramp = np.linspace(0, 65_535, 90).astype(np.uint16)[None].repeat(60, axis=0)
    picture = decode_image(saved(Image.fromarray(ramp), "PNG"))
    assert close(picture, np.rint(ramp / 257).astype(np.uint8)[..., None].repeat(3, axis=2), 0.01)


def test_of_an_animation_the_first_picture_counts():
    black = Image.new("RGB", CAT.size)
    stored = saved(CAT, "WEBP", save_all=True, append_images=[black], lossless=True)
    assert close(decode_image(stored), PIXELS, 0.01)


def test_broken_metadata_does_not_spoil_the_pixels():
    stored = saved(CAT, "JPEG", exif=b"Exif\0\0II*\0garbage and more garbage", quality=95)
    assert close(decode_image(stored), PIXELS, 6)


def test_pictures_are_shrunk_to_a_side_and_never_enlarged():
    large = Image.fromarray(data.chelsea())  # 451 x 300
    small = decode_image(saved(large, "JPEG", quality=95), max_side=100)
    assert small.shape == (67, 100, 3)
    assert close(small, np.asarray(large.resize((100, 67), Image.Resampling.BICUBIC)), 4)
    assert decode_image(saved(CAT, "PNG"), max_side=1000).shape == (60, 90, 3)
    assert decode_image(saved(Image.new("RGB", (2000, 1)), "PNG"), max_side=10).shape == (1, 10, 3)


def test_the_format_is_told_from_the_bytes():
    names = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
    assert {name: image_format(saved(CAT, name)) for name in names} == names


def test_a_label_with_more_channels_than_its_modality_is_refused():
    with pytest.raises(SampleError, match=r"canny_edge: .*60x90x3 values, expected 1 a pixel"):
        decode_label(modality("canny_edge"), saved(CAT, "PNG"))
