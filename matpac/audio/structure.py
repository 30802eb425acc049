"""What a file's own structure says of its sound, found before any decoder sees it.

Decoders conceal damage: they skip a lost page, shorten what was cut off, stop where a wrong index
tells them to. The evidence is in the file: lengths of chunks, numbers and checksums of pages, the
frames themselves. What `sound` lets through is all there, as far as its format can tell.
"""

import struct
import zlib
from typing import NamedTuple

from matpac.audio import mp3
from matpac.audio.containers import UnusableAudioError
from matpac.audio.mp3 import Content

MPEG_LAYER_3 = 0x55
"""Format tag of a WAV file that holds an MP3."""
CHUNKED = (b"RIFF", b"RIFX", b"RF64", b"FORM")
"""Begin WAV and AIFF files."""
STREAMINFO = b"\0\0\0\x22", b"\x80\0\0\x22"
"""What follows the first four bytes of a FLAC file."""
PAGE = struct.Struct("<4s2Bq3IB")
"""Of Ogg: magic, version, flags, place in time, stream, number, checksum, number of lengths."""
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
MOST_CHUNKS = 10_000
"""In front of the samples of a WAV or AIFF file."""


class Sound(NamedTuple):
    """What is to be decoded, and what is known of it."""

    content: bytes | None = None
    """An MP3 inside a WAV file; None: the file as it is."""
    frames: mp3.Frames | None = None
    """Of an MP3."""
    md5: bytes = b""
    """Of a FLAC's samples."""


def sound(data: Content) -> Sound:
    """Looks at a file that is not empty.

    Raises: UnusableAudioError if it is not whole, or holds more than one recording.
    """
    begin = mp3.behind_tags(data, 0)
    magic = data[begin : begin + 4]
    if magic == b"fLaC":
        return _of_flac(data, begin)
    if begin or (data[0] == 0xFF and data[1:2] >= b"\xe0"):
        return Sound(frames=_all_frames(data))
    if magic in CHUNKED:
        return _of_chunks(data, magic)
    if magic == b"OggS":
        _refuse_damaged_pages(data)
    return Sound()


class _Samples(NamedTuple):
    """The chunk with the samples of a WAV or AIFF file."""

    begin: int
    length: int | None
    """None: not known when the header was written."""
    tag: int
    """Format of a WAV file."""


def _of_chunks(data: Content, magic: bytes) -> Sound:
    if (found := _samples(data, magic)) is None:
        return Sound()  # libsndfile says what is wrong with such a file
    there = len(data) - found.begin
    if found.length == 0 and there > 1:
        raise UnusableAudioError(f"its header says 0 samples, but {there} bytes follow it")
    if found.length is not None and found.length > there:
        raise UnusableAudioError(f"truncated: the last {found.length - there} bytes are missing")
    if found.length is not None:
        _refuse_more(data, found.begin + found.length, odd=found.length % 2)
    if found.tag != MPEG_LAYER_3:
        return Sound()
    inner = data[found.begin :][: found.length]
    return Sound(inner, _all_frames(inner))


def _refuse_more(data: Content, end: int, odd: int) -> None:
    """Raises UnusableAudioError if something else than chunks and padding follows the samples."""
    for begin in range(end, end + 1 + odd):  # an odd length is filled up, by most
        behind = data[begin : begin + 4]
        if behind in CHUNKED:
            raise UnusableAudioError(f"a second stream begins at byte {begin}")
        text = all(32 <= byte < 127 for byte in behind)
        if not any(behind) or text or behind[:3] == b"TAG":
            return
    raise UnusableAudioError(f"its header says that its samples end at byte {end}, but more follow")


def _samples(data: Content, magic: bytes) -> _Samples | None:
    order = "<" if magic in (b"RIFF", b"RF64") else ">"
    position, large, tag = 12, None, 0
    for _ in range(MOST_CHUNKS):
        if position + 8 > len(data):
            break
        name, length = struct.unpack_from(f"{order}4sI", data, position)
        begin = position + 8
        if name == b"ds64" and begin + 16 <= len(data):  # RF64 has room for sizes beyond 4 GB here
            large = struct.unpack_from("<Q", data, begin + 8)[0]
        if name == b"fmt " and begin + 2 <= len(data):
            tag = struct.unpack_from(f"{order}H", data, begin)[0]
        if name in (b"data", b"SSND"):
            streamed = length >= 0x7FFFF000 and magic != b"FORM"
            return _Samples(begin, large if streamed else length, tag)
        position = begin + length + length % 2
    return None


def _refuse_damaged_pages(data: Content) -> None:
    """Raises UnusableAudioError unless every page is there, unharmed, and of one recording."""
    position, number, time, ended = 0, -1, 0, False
    while position < len(data):
        begin = data[position : position + PAGE.size]
        if begin[:4] != b"OggS" or len(begin) < PAGE.size:
            if ended:  # padding, or a tag
                return
            raise UnusableAudioError(f"damaged or truncated: no page begins at byte {position}")
        _, _, flags, until, _, page, stated, num_lengths = PAGE.unpack(begin)
        lengths = data[position + PAGE.size : position + PAGE.size + num_lengths]
        end = position + PAGE.size + num_lengths + sum(lengths)
        if missing := max(0, end - len(data)):
            raise UnusableAudioError(f"truncated: the last {missing} bytes are missing")
        if flags & 2 and number >= 0:
            raise UnusableAudioError(f"a second stream begins at byte {position}")
        if checksum(data[position:end]) != stated:
            raise UnusableAudioError(f"damaged: wrong checksum of the page at byte {position}")
        if number >= 0 and page != number + 1:
            raise UnusableAudioError(f"damaged: page {number + 1} is missing at byte {position}")
        if -1 != until < time:
            raise UnusableAudioError(f"damaged: the page at byte {position} lies in the past")
        position, number, time, ended = end, page, max(time, until), bool(flags & 4)
    if not ended:
        raise UnusableAudioError("truncated: it ends without a page that is marked as the last")


def checksum(page: bytes) -> int:
    """Of an Ogg page: zlib's CRC of its bits in the other order, from 0 on, without its own."""
    zeroed = page[:22] + bytes(4) + page[26:]
    found = zlib.crc32(zeroed.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2)


def _of_flac(data: Content, begin: int) -> Sound:
    """Raises UnusableAudioError for two files joined; libFLAC itself notices other damage."""
    position = data.find(b"fLaC", begin + 4)
    while position >= 0:
        if data[position + 4 : position + 8] in STREAMINFO:
            raise UnusableAudioError(f"a second stream begins at byte {position}")
        position = data.find(b"fLaC", position + 4)
    md5 = data[begin + 26 : begin + 42]
    return Sound(md5=md5 if any(md5) else b"")


def _all_frames(data: Content) -> mp3.Frames:
    """The frames of an MP3: those that its index promises, or all to its end."""
    if (found := mp3.frames(data)) is None:
        raise UnusableAudioError("not audio, or an MP3 whose frames cannot be counted")
    if found.missing:
        raise UnusableAudioError(f"truncated: the last {found.missing} bytes are missing")
    if found.promised is None and found.behind:
        raise UnusableAudioError(f"damaged: no frame begins at byte {len(data) - found.behind}")
    if found.promised is not None and found.promised != found.count:
        reason = "truncated or damaged" if found.promised > found.count else "joined or damaged"
        raise UnusableAudioError(
            f"{reason}: its index says {found.promised} frames, {found.count} are there"
        )
    return found
