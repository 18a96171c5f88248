"""Picture files opened with care: what they are is looked at first, and nothing that goes wrong is a traceback."""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageFile

from lyra.errors import LyraError
from lyra.files.atomic import explain_reading
from lyra.files.camera_frames import Shape
from lyra.files.kinds import HEAD, content_page, has_more_pages, is_heic, is_raw, is_video_head
from lyra.files.orientation import BY_EXIF, UPRIGHT, Orientation

SMALLEST_SIDE = 16
"""Pixels below which a photo holds nothing to reconstruct."""
LARGEST_ASPECT = 8.0
"""Longer over shorter side; beyond it a centre crop would show a meaningless part."""
LARGEST_PIXELS = 178_000_000
"""More is refused before decoding (a decompression bomb, or a file that would not fit in memory)."""
LARGEST_BYTES = 1 << 30
# A closed list: other Pillow plugins are rare, and some start external programs (EPS). MPO, a phone's JPEG
# with extra pictures, opens through JPEG.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM", "JPEG2000")
DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, ArithmeticError, AttributeError, RuntimeError, AssertionError),
)
"""What decoders raise at damaged files."""


@dataclass(frozen=True)
class Picture:
    """An opened picture: its header is read, its pixels when they are asked for."""

    image: Image.Image
    """As stored."""
    data: bytes
    """The whole file."""
    orientation: Orientation
    notes: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """Size and orientation."""
        return Shape(*self.image.size, self.orientation)


@contextlib.contextmanager
def guard(path: Path) -> Iterator[None]:
    """Ends whatever goes wrong while a picture is read as one line; around all of the reading.

    Raises:
        LyraError: anything that a decoder, or the system, complains of.
    """
    # Another library in the process may have switched Pillow to filling what is missing with grey.
    tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        # Pillow reports odd metadata as warnings; they are of no use to someone who wants a scene.
        with warnings.catch_warnings(), explain_system_errors(path):
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise LyraError(f"{path} does not fit in memory: scale it down first") from None
    except Image.DecompressionBombError:
        raise LyraError(f"{path} has too many pixels: scale it below {LARGEST_PIXELS // 10**6} MP") from None
    except DECODING_ERRORS:
        raise LyraError(f"{path} is damaged or incomplete: export or download the photo again") from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


@contextlib.contextmanager
def explain_system_errors(path: Path) -> Iterator[None]:
    """As ``explain_reading``, for errors of the system alone: Pillow's own are OSErrors without a number."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        with explain_reading(path):
            raise


def open_picture(path: Path) -> Picture:
    """Reads a picture's file and its header.

    Raises:
        LyraError: it is missing, no picture, too small, too elongated or too large.
    """
    path = Path(path)
    with guard(path):
        data = _read(path)
        if is_heic(data[:HEAD]):
            image, orientation, notes = _open_heic(path, data), UPRIGHT, ()
        elif is_raw(path, data):
            image, orientation, notes = _develop(path, data), UPRIGHT, ("developed from its raw data",)
        else:
            image = _open_plain(path, data)
            orientation, notes = _read_orientation(image)
            if has_more_pages(image):
                pages = image.format == "TIFF"
                notes += (
                    ("it has several pages: one was used",) if pages else ("an animation: its first frame was used",)
                )
        check_size(path, image.size)
        return Picture(image, data, orientation, notes)


def picture_shape(path: Path) -> Shape:
    """A picture's size and orientation, by its header.

    Raises:
        LyraError: as :func:`open_picture`.
    """
    return open_picture(path).shape


def _read(path: Path) -> bytes:
    """The file's bytes, after the checks that need no decoding."""
    if path.is_dir():
        raise LyraError(f"{path} is a folder: give one photo (JPEG, PNG, WebP or TIFF)")
    with explain_reading(path):
        size = path.stat().st_size
        if size == 0:
            raise LyraError(f"{path} is empty: export or download the photo again")
        with path.open("rb") as file:
            head = file.read(HEAD)
            if is_video_head(path, head):
                raise LyraError(f"{path} is a video where a photo is expected: give one photo")
            if size > LARGEST_BYTES:
                raise LyraError(f"{path} has {size / 2**30:.1f} GiB, too much for a photo: export it as JPEG")
            return head + file.read()


def _open_plain(path: Path, data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=PHOTO_FORMATS)
    except Image.DecompressionBombError:
        raise
    except DECODING_ERRORS:
        raise LyraError(f"{path} is no photo that can be read: give a JPEG, PNG, WebP or TIFF") from None
    content_page(image)
    return image


def _open_heic(path: Path, data: bytes) -> Image.Image:
    """The main picture, which the library turns upright."""
    try:
        import pillow_heif
    except ImportError:
        raise LyraError(
            f"{path} is a HEIC photo: pip install 'lyra[photos]' to read it, or convert it to JPEG"
        ) from None
    try:
        opened: Any = pillow_heif.open_heif(io.BytesIO(data))
        if opened.size[0] * opened.size[1] > LARGEST_PIXELS:
            raise Image.DecompressionBombError
        return opened.to_pillow()
    except DECODING_ERRORS:
        raise LyraError(f"{path} is a HEIC photo that cannot be read: convert it to JPEG") from None


def _develop(path: Path, data: bytes) -> Image.Image:
    """A raw photo, upright and in sRGB, by its own white balance; its lens data go with it."""
    try:
        import rawpy
    except ImportError:
        raise LyraError(f"{path} is a raw photo: pip install 'lyra[photos]' to read it, or export it as JPEG") from None
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            if raw.sizes.width * raw.sizes.height > LARGEST_PIXELS:
                raise Image.DecompressionBombError
            image = Image.fromarray(raw.postprocess(use_camera_wb=True, output_bps=8))
    except Image.DecompressionBombError:
        raise
    except Exception:  # LibRaw has a class of error for each of its steps
        raise LyraError(f"{path} is a raw photo that cannot be read: export it as JPEG") from None
    with contextlib.suppress(*DECODING_ERRORS):
        # Exif stands in the file's first page, whatever picture that holds.
        image.getexif().update(Image.open(io.BytesIO(data), formats=("TIFF",)).getexif())
    return image


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Refuses what no scene can be made of.

    Raises:
        LyraError: too small, too elongated or too large.
    """
    shape = f"{size[0]}x{size[1]}"
    if min(size) < SMALLEST_SIDE:
        raise LyraError(f"{path} is {shape} pixels, the shorter side is too small: give at least {SMALLEST_SIDE}")
    if max(size) > LARGEST_ASPECT * min(size):
        raise LyraError(f"{path} is {shape} pixels, more than {LARGEST_ASPECT:.0f}:1: crop it first")
    if size[0] * size[1] > LARGEST_PIXELS:
        raise LyraError(f"{path} is {shape} pixels, too many: scale it below {LARGEST_PIXELS // 10**6} MP")


def _read_orientation(image: Image.Image) -> tuple[Orientation, tuple[str, ...]]:
    try:
        number = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DECODING_ERRORS:  # broken EXIF does not make the pixels unusable
        return UPRIGHT, ("its EXIF data is damaged and was ignored",)
    orientation = BY_EXIF.get(number, UPRIGHT) if isinstance(number, int) else UPRIGHT
    return orientation, () if orientation == UPRIGHT else ("turned upright by its EXIF orientation",)


def load_pixels(picture: Picture) -> Image.Image:
    """All pixels, upright. A file that ends early is an error, never a half-grey picture; call it within ``guard``."""
    image = picture.image
    if image.format in ("JPEG", "MPO") and not _has_end_marker(picture.data):
        raise EOFError
    image.load()
    return picture.orientation.show(image)


def _has_end_marker(data: bytes) -> bool:
    """Whether a JPEG's entropy-coded data is followed by an end-of-image marker.

    An interrupted download into a preallocated file is padded with zeros, which decode to grey without error.
    Segments are skipped by their lengths because the EXIF thumbnail holds an end marker of its own.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0xDA:
            return data.find(b"\xff\xd9", position) >= 0
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return b"\xff\xd9" in data[position:]
