"""The frames of an MP3, counted from their headers.

A file may start with a frame that says how many follow ("Xing" or "Info"). For one without,
libsndfile guesses its length from its size, tags included, and reads no further than that.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Content = bytes | mmap.mmap

BITRATES = {  # kbit/s by (MPEG-1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Hz by the header's version: 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5."""


class Header(NamedTuple):
    """What the four bytes before a frame say."""

    kind: tuple[int, int, int]
    """Version, layer and rate, the same for all frames of a file."""
    length: int
    """Bytes, header included."""
    samples: int
    """Per channel."""
    side_info: int
    """Bytes between the header and the data."""


@dataclass(frozen=True)
class Frames:
    """What a file's frames hold together."""

    indexed: bool
    """The first frame says how many there are, so a decoder knows, too."""
    samples: int = 0
    """Per channel, of all complete frames; counted only if there is no index."""
    longest: int = 0
    """Samples of one frame."""
    missing_bytes: int = 0
    """Of the last frame."""


def frames(content: Path | bytes) -> Frames | None:
    """Walks the frame headers of an MP3 that is not empty; None if it has none that can be walked.

    Tags before and behind are skipped, and so is what lies between frames and is none.

    Args: content: its path, or its bytes.
    """
    if isinstance(content, bytes):
        return _walk(content)
    with content.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _walk(data)


def _walk(data: Content) -> Frames | None:
    position = _next_frame(data, _end_of_id3v2(data), None)
    if position is None or (first := _header(data, position)) is None:
        return None
    if _is_index(data, position, first):
        return Frames(indexed=True)
    samples = 0
    while position is not None and (header := _header(data, position)) is not None:
        if missing := max(0, position + header.length - len(data)):
            return Frames(False, samples, first.samples, missing)
        samples += header.samples
        position += header.length
        following = _header(data, position)
        if following is None or following.kind != first.kind:
            position = _next_frame(data, position, first.kind)
    return Frames(False, samples, first.samples)


def _header(data: Content, position: int) -> Header | None:
    """The header at a place, or None if there is none (or one of free format, of any length)."""
    if len(data) < position + 4 or data[position] != 0xFF or data[position + 1] < 0xE0:
        return None
    version, layer = data[position + 1] >> 3 & 3, 4 - (data[position + 1] >> 1 & 3)
    bitrate, rate = data[position + 2] >> 4, data[position + 2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    bits_per_s, hz = 1000 * BITRATES[version == 3, layer][bitrate - 1], RATES[version][rate]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    padding = data[position + 2] >> 1 & 1
    if layer == 1:
        length = 4 * (12 * bits_per_s // hz + padding)
    else:
        length = samples // 8 * bits_per_s // hz + padding
    mono = data[position + 3] >> 6 == 3
    side_info = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return Header((version, layer, rate), length, samples, side_info)


def _next_frame(data: Content, start: int, kind: tuple[int, int, int] | None) -> int | None:
    """The first place from ``start`` on with two frames in a row (or one that ends the file)."""
    position = data.find(b"\xff", start)
    while position >= 0:
        header = _header(data, position)
        if header is not None and kind in (None, header.kind):
            behind = position + header.length
            following = _header(data, behind)
            if behind == len(data) or (following is not None and following.kind == header.kind):
                return position
        position = data.find(b"\xff", position + 1)
    return None


def _is_index(data: Content, position: int, header: Header) -> bool:
    """Whether this frame holds no sound but the number of frames."""
    tag = position + 4 + header.side_info
    if data[tag : tag + 4] not in (b"Xing", b"Info") or len(data) < tag + 8:
        return False
    return bool(data[tag + 7] & 1)  # without this flag there is a table, but no number


def _end_of_id3v2(data: Content) -> int:
    """Where the sound starts: behind tags that begin with ID3 and their size, 7 bits per byte."""
    position = 0
    while data[position : position + 3] == b"ID3" and len(data) >= position + 10:
        size = 0
        for byte in data[position + 6 : position + 10]:
            size = size << 7 | byte & 0x7F
        has_footer = data[position + 5] & 0x10
        position += 10 + size + (10 if has_footer else 0)
    return position
