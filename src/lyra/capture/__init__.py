"""Where pictures were taken from, found in the pictures themselves."""

from lyra.capture.reconstruction import Capture, find_cameras

__all__ = ["Capture", "find_cameras"]
