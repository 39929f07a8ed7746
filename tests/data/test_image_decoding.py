"""Decoding of images: modes that are converted, and one sentence for an image that cannot be used."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import GOOD, colours, png, quick
from PIL import Image

from mfresnet.data.images import decoding
from mfresnet.errors import MfresnetError


def sixteen_bit(channels):
    """A PNG with 16 bits a channel, which Pillow cannot write in colour: grey, with the type of colour changed."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 5, 4, 16, 2 if channels == 3 else 0, 0, 0, 0)
    rows = (b"\0" + bytes(5 * 2 * channels)) * 4
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FULL = Image.fromarray(colours(1)[0])
ALPHA = FULL.copy()
ALPHA.putalpha(255)
HOLE = ALPHA.copy()
HOLE.putpixel((1, 1), (1, 2, 3, 254))
BAD_IMAGES = {
    "text": (b"no image", "neither PNG nor JPEG"),
    "empty": (b"", r"cannot be decoded \(0 bytes\)"),
    "truncated": (GOOD[1][: len(GOOD[1]) // 2], "cannot be decoded"),
    "gif": (saved(FULL, "GIF"), "neither PNG nor JPEG"),
    "size": (png(colours(1, (5, 4))[0]), r"has 4 x 5 pixels \(width x height\), the first image has 5 x 4"),
    "cmyk": (saved(FULL.convert("CMYK"), "JPEG"), "colour mode CMYK: save it as RGB"),
    "16 bits": (sixteen_bit(1), "more than 8 bits a channel: .*save it with 8 bits"),
    "16 bits in colour": (sixteen_bit(3), "more than 8 bits a channel"),
    "transparent": (saved(HOLE), "has transparent pixels: put it on a background"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_an_image_that_cannot_be_used_is_named(case):
    content, message = BAD_IMAGES[case]
    with pytest.raises(MfresnetError, match=f"^row 6 {message}|^row 6 .*{message}"):
        decoding.decode_images([*GOOD[:6], content, b"", GOOD[7]], lambda i: f"row {i}")


@quick
@given(st.data())
def test_damaged_images_end_in_one_sentence(data):
    content = bytearray(png(colours(1, (8, 8))[0], kind=data.draw(st.sampled_from(["PNG", "JPEG"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    try:
        x, _ = decoding.decode_images([bytes(content)], lambda i: f"row {i}")
    except MfresnetError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
    else:
        assert x.dtype == np.uint8 and x.ndim == 4


def test_harmless_modes_are_converted_and_told():
    grey = FULL.convert("L")
    x, notes = decoding.decode_images([saved(FULL), saved(ALPHA), saved(grey)], lambda i: f"row {i}")
    np.testing.assert_array_equal(x[0], x[1])
    np.testing.assert_array_equal(x[2], np.repeat(np.asarray(grey)[..., None], 3, axis=2))
    assert "1 image had an alpha channel, opaque everywhere, which was dropped." in notes
    assert "1 grey images among colour ones were repeated to 3 channels." in notes
    palette = FULL.quantize(20)  # 20 pixels: no colour is lost
    x, notes = decoding.decode_images([saved(palette)], lambda i: f"row {i}")
    np.testing.assert_array_equal(x[0], np.asarray(palette.convert("RGB")))
    assert notes == ("1 image with a palette became RGB.",)
    x, notes = decoding.decode_images([saved(grey), saved(grey.convert("1"))], lambda i: f"row {i}")
    assert x.shape == (2, 4, 5, 1) and set(np.unique(x[1])) <= {0, 255} and len(notes) == 1


def test_a_decompression_bomb_is_an_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)  # 20 pixels: Pillow itself would only warn
    with pytest.raises(MfresnetError, match=r"row 0 claims more than 15 pixels, .* decompression bomb"):
        decoding.decode_images(GOOD, lambda i: f"row {i}")
