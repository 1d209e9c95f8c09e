"""Picture formats that shards do not hold: rewritten without loss before they are stored."""

import io
import warnings

from PIL import Image, ImageOps

from fourmill.manifests.errors import SampleError

MAX_PIXELS = 100_000_000
_REWRITTEN = ("BMP", "GIF", "TIFF")
_MAGIC = (b"BM", b"GIF8", b"II*\0", b"MM\0*")


def as_supported(data: bytes) -> bytes:
    """JPEG, PNG and WebP (and whatever is no picture) as they are; BMP, TIFF and the first picture
    of a GIF as upright PNG.

    Raises:
        SampleError: stage `decode`; such a picture, but broken or larger than 100 megapixels.
    """
    if not data.startswith(_MAGIC):
        return data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_REWRITTEN) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise SampleError(
                        "decode",
                        f"{image.width} x {image.height} pixels are more than the limit of "
                        f"{MAX_PIXELS:,} pixels",
                    )
                upright = ImageOps.exif_transpose(image)
                transparent = upright.has_transparency_data
                buffer = io.BytesIO()
                upright.convert("RGBA" if transparent else "RGB").save(buffer, "PNG")
                return buffer.getvalue()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError("decode", f"not readable: {error}") from error
