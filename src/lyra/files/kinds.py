"""What a file is by its content: a container's first bytes, its brands and its pages, not its name or first picture."""

import io
import struct
from pathlib import Path

from PIL import Image, TiffImagePlugin

STILL_BRANDS = {
    *(b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"heif", b"mif1", b"mif2", b"msf1", b"miaf", b"MiHB", b"MiHE", b"avci", b"avcs", b"jpeg"),
}
"""Brands of ISO base media files that hold pictures."""
VIDEO_BRANDS = {
    *(b"qt  ", b"avc1", b"hvc1", b"hev1", b"M4V ", b"M4VH", b"M4VP", b"M4A ", b"f4v ", b"F4V ", b"MSNV", b"XAVC"),
    *(b"dash", b"msdh", b"msix", b"piff", b"NDSC", b"NDSH", b"mmp4", b"av01", b"niko", b"CAEP", b"pana", b"kddi"),
}
"""Brands of films (and of sound, which the reader of films names); others begin with one of the next."""
_VIDEO_BEGINNINGS = (b"iso", b"mp4", b"mp7", b"3gp", b"3g2", b"cmf")
_QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""How films of before ``ftyp`` begin."""
VIDEO_SUFFIXES = {
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mts", ".m2ts"),
    *(".3gp", ".flv", ".ogv"),
}
RAW_SUFFIXES = {
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".raf", ".pef"),
    *(".srw", ".x3f", ".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".mos", ".mef", ".rwl", ".gpr"),
}
_RAW_HEADS = (b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"II\x1a\0\0\0HEAPCCDR")
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SENSOR_PHOTOMETRICS = (32803, 34892)
"""A color filter array, and linear values of a sensor: TIFF's PhotometricInterpretation of raw photos."""
_DNG_VERSION, _SUBFILES, _PHOTOMETRIC = 50706, 330, 262
_MOST_PAGES = 64
HEAD = 64
"""Bytes that :func:`is_video_head` and the others look at."""


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its content or else its suffix; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return is_video_head(path, file.read(HEAD))
    except OSError:
        return False


def is_video_head(path: Path, head: bytes) -> bool:
    """By content, so that a video under another name is told apart; by suffix for the rest."""
    if head[4:8] == b"ftyp":
        if is_heic(head) or head[8:12] in STILL_BRANDS or head[8:11] in (b"crx", b"jp2", b"jpx", b"jxl"):
            return False
        return any(_is_video_brand(brand) for brand in _brands(head)) or path.suffix.lower() in VIDEO_SUFFIXES
    if head.startswith(b"\x1aE\xdf\xa3") or (head.startswith(b"RIFF") and head[8:12] == b"AVI "):
        return True
    return head[4:8] in _QUICKTIME_ATOMS or path.suffix.lower() in VIDEO_SUFFIXES


def _is_video_brand(brand: bytes) -> bool:
    return brand in VIDEO_BRANDS or brand[:3] in _VIDEO_BEGINNINGS


def _brands(head: bytes) -> list[bytes]:
    """The major brand and the compatible ones that are within the head."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]


def is_heic(head: bytes) -> bool:
    """Whether it is a HEIF picture that is no AVIF, which Pillow reads itself."""
    if head[4:8] != b"ftyp" or head[8:12] not in STILL_BRANDS:
        return False
    return head[8:12] not in (b"avif", b"avis") and b"avif" not in _brands(head)


def is_raw(path: Path, data: bytes) -> bool:
    """Whether it is a camera's raw photo: what a sensor measured, often beside a small picture for a preview."""
    if data.startswith(_RAW_HEADS) or data[4:11] == b"ftypcrx":
        return True
    if not data.startswith(_TIFF_HEADS):
        return False
    return data[8:10] == b"CR" or path.suffix.lower() in RAW_SUFFIXES or _has_sensor_page(data)


def _has_sensor_page(data: bytes) -> bool:
    """Whether any page of a TIFF, or of its pages' own pages, holds a sensor's values; what is odd is passed over."""
    todo, seen = [int.from_bytes(data[4:8], "little" if data.startswith(b"II") else "big")], set()
    while todo and len(seen) < _MOST_PAGES:
        offset = todo.pop()
        if offset in seen or not 0 < offset < len(data):
            continue
        seen.add(offset)
        try:
            page = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
            stream = io.BytesIO(data)
            stream.seek(offset)
            page.load(stream)
            if _DNG_VERSION in page or page.get(_PHOTOMETRIC) in _SENSOR_PHOTOMETRICS:
                return True
            below = page.get(_SUBFILES, ())
            todo += [below] if isinstance(below, int) else [int(at) for at in below]
            todo.append(int(page.next or 0))
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error, OverflowError):
            continue
    return False


def content_page(image: Image.Image) -> int:
    """Number of the first page of an open TIFF that is no smaller version and no mask of another; 0 otherwise.

    No pixels are read, and no page after it.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    page = 0
    while int(image.tag_v2.get(254, 0)) & 5:
        try:
            image.seek(page + 1)
        except EOFError:
            image.seek(0)
            return 0
        page += 1
    return page


def has_more_pages(image: Image.Image) -> bool:
    """Whether an open picture is followed by others, which are not read."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return bool(image.tag_v2.next)
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))
