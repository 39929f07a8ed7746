"""PNG and JPEG to 8-bit arrays through Pillow, in parallel threads; what would lose information is refused."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from ...errors import MfresnetError
from ..guard import refuse_beyond_memory

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

CHUNK = 256
ADVICE = {
    "CMYK": "save it as RGB",
    "I;16": "16-bit pixels would be cut: save it with 8 bits",
    "I": "32-bit pixels would be cut: save it with 8 bits",
    "F": "its pixels are no 8-bit numbers: save it with 8 bits",
}


def decode_images(
    sources: Sequence[bytes | Callable[[], bytes]], place: Callable[[int], str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Encoded images, all of one size, as one array.

    Grey images stay grey (C = 1) if all are; among colour images they are repeated to 3 channels. Palettes and
    1-bit images are expanded, an alpha channel is dropped where every pixel is opaque: each of these is told in a
    note. Refused: other formats than PNG and JPEG, CMYK, more than 8 bits, transparent pixels, mixed sizes, and
    images so large that Pillow takes them for a decompression bomb.

    Args:
        sources: PNG or JPEG bytes, or functions that return them.
        place: puts image i into words for messages.

    Returns:
        uint8 of shape (n, H, W, C), and the notes.

    Raises:
        MfresnetError: no images, or the first image that cannot be used.

    >>> from PIL import Image
    >>> buffer = io.BytesIO()
    >>> Image.new("RGB", (3, 2), (255, 0, 10)).save(buffer, "PNG")
    >>> decode_images([buffer.getvalue()], lambda i: f"row {i}")[0][0, 0, 0].tolist()
    [255, 0, 10]
    """
    from PIL import Image

    Image.preinit()  # once, before threads meet there

    def decode(start: int) -> list[tuple[np.ndarray, str | None] | MfresnetError]:
        out: list[tuple[np.ndarray, str | None] | MfresnetError] = []
        for i in range(start, min(start + CHUNK, len(sources))):
            try:
                out.append(_decode(sources[i], lambda i=i: place(i), first))
            except MfresnetError as error:
                out.append(error)
                break
        return out

    first: tuple[int, int] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        pixels, _ = _decode(sources[0], lambda: place(0), None)
        first = (pixels.shape[1], pixels.shape[0])
        refuse_beyond_memory(3.0 * len(sources) * 3 * pixels.shape[0] * pixels.shape[1], f"decoding {place(0)} and on")
        out = np.empty((len(sources), *pixels.shape[:2], 3), np.uint8)
        grey = np.zeros(len(sources), bool)
        converted: dict[str, int] = {}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start, chunk in zip(
                range(0, len(sources), CHUNK), pool.map(decode, range(0, len(sources), CHUNK)), strict=True
            ):
                for i, pair in enumerate(chunk, start=start):
                    if isinstance(pair, MfresnetError):
                        pool.shutdown(cancel_futures=True)
                        raise pair
                    out[i] = pair[0]
                    grey[i] = pair[0].shape[2] == 1
                    if pair[1]:
                        converted[pair[1]] = converted.get(pair[1], 0) + 1
    notes = [f"{count} image{'s' if count > 1 else ''} {what}." for what, count in converted.items()]
    if grey.all():
        return np.ascontiguousarray(out[..., :1]), tuple(notes)
    if grey.any():
        notes.append(f"{int(grey.sum())} grey images among colour ones were repeated to 3 channels.")
    return out, tuple(notes)


def _decode(
    source: bytes | Callable[[], bytes], place: Callable[[], str], size: tuple[int, int] | None
) -> tuple[np.ndarray, str | None]:
    """Pixels of shape (H, W, 1 or 3), and the conversion that was made."""
    from PIL import Image

    data = b""
    try:
        data = source if isinstance(source, bytes) else source()
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if size is not None and image.size != size:
                raise MfresnetError(
                    f"{place()} has {image.size[0]} x {image.size[1]} pixels (width x height), the first image has "
                    f"{size[0]} x {size[1]}: bring all images to one size."
                )
            if image.mode in ADVICE or _deep(data):
                kind = "more than 8 bits a channel" if _deep(data) else f"colour mode {image.mode}"
                raise MfresnetError(f"{place()} has {kind}: {ADVICE.get(image.mode, 'save it with 8 bits')}.")
            converted, done = _plain(image, place)
            pixels = np.asarray(converted)
    except MfresnetError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MfresnetError(
            f"{place()} claims more than {Image.MAX_IMAGE_PIXELS} pixels, which looks like a decompression bomb."
        ) from error
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        if isinstance(error, MemoryError):
            raise
        reason = "it is neither PNG nor JPEG" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        shown = " ".join(reason.split())[:120].rstrip(". ") or type(error).__name__
        raise MfresnetError(f"{place()} cannot be decoded ({len(data)} bytes): {shown}.") from error
    return pixels.reshape(*pixels.shape[:2], -1), done


def _deep(data: bytes) -> bool:
    """Whether a PNG has 16 bits a channel, which Pillow would cut to 8 in silence."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:25] == b"\x10"


def _plain(image: PilImage, place: Callable[[], str]) -> tuple[PilImage, str | None]:
    """The image in mode L or RGB, and what had to be done."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image, None
    if image.mode == "1":
        return image.convert("L"), "of 1 bit a pixel became grey"
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB"), "with a palette became RGB"
    if image.mode in ("L", "RGB", "P", "LA", "PA", "RGBA", "RGBa", "La"):
        grey = image.mode in ("L", "LA", "La")
        image = image.convert("LA" if grey else "RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise MfresnetError(f"{place()} has transparent pixels: put it on a background and save it without alpha.")
        return image.convert("L" if grey else "RGB"), "had an alpha channel, opaque everywhere, which was dropped"
    raise MfresnetError(f"{place()} has colour mode {image.mode}: save it as grey or RGB with 8 bits.")
