"""The frames of an MP3, counted from their headers.

A file may start with a frame that says how many follow, its index ("Xing" or "Info"). Decoders
believe it, and guess the length of a file without one; here the frames themselves are counted.
"""

import mmap
import struct
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
MOST_PADDING = 1 << 16
"""Zeros between the tags and the first frame."""


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


class Frames(NamedTuple):
    """What a file's frames hold together."""

    first: int
    """Byte of the first frame with sound."""
    count: int
    """Complete frames with sound."""
    samples: int
    """Per channel and frame."""
    layer: int
    """Of MPEG: 3, or 1 or 2."""
    promised: int | None = None
    """Frames by the index; None without one."""
    missing: int = 0
    """Bytes of the last frame."""
    behind: int = 0
    """Bytes behind the last frame that are no tag."""

    @property
    def total(self) -> int:
        """Samples of all frames, per channel."""
        return self.count * self.samples


def frames(data: Content) -> Frames | None:
    """Walks the frame headers from the first to where none follows; None if there is no frame."""
    first = _first(data)
    if first is None or (header := _header(data, first)) is None:
        return None
    kind, samples, promised = header.kind, header.samples, None
    tag = first + 4 + header.side_info
    if data[tag : tag + 4] in (b"Xing", b"Info") and len(data) >= tag + 12:
        flags, number = struct.unpack_from(">2I", data, tag + 4)
        promised = number if flags & 1 else None
        first += header.length
    position, count, missing = first, 0, 0
    while header := _header(data, position := behind_tags(data, position)):
        if header.kind != kind or (missing := max(0, position + header.length - len(data))):
            break
        count += 1
        position += header.length
    behind = max(0, len(data) - position)
    return Frames(first, count, samples, kind[1], promised, missing, behind)


def with_index(data: Content) -> bytes:
    """An MP3 with all of its frames behind an index of their number, which decoders believe.

    Raises: ValueError for another layer than III, which has no index.
    """
    found = frames(data)
    if found is None or found.layer != 3:
        raise ValueError("MPEG layer I or II of variable bit rate")
    header = bytearray(data[found.first : found.first + 4])
    header[1] |= 1  # no checksum
    header[2] = 0xE0 | header[2] & 0x0C  # the highest bit rate, for the room that it gives
    frame = _header(bytes(header), 0)
    assert frame is not None
    tag = struct.pack(">4s2I", b"Xing", 1, found.count)
    index = bytes(header) + bytes(frame.side_info) + tag
    return index.ljust(frame.length, b"\0") + data[found.first :]


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


def _first(data: Content) -> int | None:
    """The frame right behind the tags (and zeros): one that another follows, or that ends it."""
    position = behind_tags(data, 0)
    padding = data[position : position + MOST_PADDING]
    position += len(padding) - len(padding.lstrip(b"\0"))
    if (header := _header(data, position)) is None:
        return None
    behind = position + header.length
    following = _header(data, behind_tags(data, behind))
    one_of_more = following is not None and following.kind == header.kind
    return position if behind >= len(data) or one_of_more else None


def behind_tags(data: Content, position: int) -> int:
    """The first place from this one on where no tag begins: ID3 (version 1 or 2) or APE."""
    while True:
        begin = data[position : position + 32]
        if begin[:3] == b"ID3" and len(begin) >= 10:  # its size has 7 bits per byte
            size = 0
            for byte in begin[6:10]:
                size = size << 7 | byte & 0x7F
            position += 10 + size + (10 if begin[5] & 0x10 else 0)  # perhaps a footer
        elif begin[:3] == b"TAG":
            position += 128
        elif begin[:8] == b"APETAGEX" and len(begin) == 32:
            is_header = begin[23] & 0x20
            position += int.from_bytes(begin[12:16], "little") + (32 if is_header else 0)
        else:
            return position
