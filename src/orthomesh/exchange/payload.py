"""What travels, as bytes: typed sections with limits. The one truth about bits; nothing is ever unpickled.

A frame is `OM2` + number of sections, then per section: a byte of column, dtype and whether it is compressed, rank of
the shape, length of the name, length of the bytes, name, shape, raw little-endian bytes (zstd where that is shorter).
Lengths and sides take seven bits a byte, lowest first, the eighth where more follow. The length of a frame is what is
charged.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import NamedTuple
from weakref import WeakValueDictionary, finalize

import numpy as np
import zstandard

from ..types import COLUMNS, Array, Arrays, Column

MAGIC = b"OM2"
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int32", "int64", "float16", "float32", "float64")
MAX_BYTES = 1 << 32
MAX_SECTIONS = 4096
_PIECE = 1 << 18
_READ: WeakValueDictionary[bytes, Array] = WeakValueDictionary()
"""Arrays that somebody in this process still holds, by digest of the section they came in: what a sender has told is
unpacked and kept once, however many simulated devices receive it and pass it on. They cannot be written to."""
_STORED: dict[int, tuple[bool, bytes]] = {}
"""Of the same arrays, by `id`, what they were unpacked from and whether it was compressed: passed on, it is not packed
again. An entry ends with its array."""
_HEAD = struct.Struct("<3sH")
_SECTION = struct.Struct("<BBB")  # 32 column + 2 dtype + compressed, dimensions, length of name
_LONGEST = 9
"""Bytes of a length or side at most, 63 bits."""


class Section(NamedTuple):
    """A named array and the column its bytes are charged to."""

    column: Column
    name: str
    array: Array


class Payload(bytes):
    """Framed bytes, with what they hold once somebody in this process has read that."""

    arrays: Arrays | None = None


class Frame(NamedTuple):
    """Framed bytes and how many of them belong to each column; the columns add up to the length."""

    payload: bytes
    columns: dict[Column, int]


def encode(sections: Sequence[Section]) -> Frame:
    """Frame arrays for the air.

    Args:
        sections: at most 4096 arrays of the types in `DTYPES`, names different and at most 255 bytes long.

    Returns:
        The bytes, and their number by column; the five bytes of the frame's head count as control.

    Raises:
        ValueError: a dtype that does not travel, a name too long or given twice, too many sections.
    """
    if len(sections) > MAX_SECTIONS or len({s.name for s in sections}) < len(sections):
        raise ValueError(f"a frame holds at most {MAX_SECTIONS} sections of different names, got {len(sections)}")
    parts = [_HEAD.pack(MAGIC, len(sections))]
    columns: dict[Column, int] = {"control": _HEAD.size}
    for section in sections:
        part = _encode_section(section)
        parts.append(part)
        columns[section.column] = columns.get(section.column, 0) + len(part)
    payload = Payload(b"".join(parts))
    if sections and all(id(s.array) in _STORED for s in sections):  # what `decode` would find
        payload.arrays = MappingProxyType({s.name: s.array for s in sections})
    return Frame(payload, columns)


def check_length(length_b: int, what: str, instead: str = "another method") -> None:
    """Whether a message can be told in one frame, before anybody has worked for it.

    Args:
        length_b: of its arrays, bytes; packed they may be a little shorter, which is not counted on.
        what: it is, as the beginning of a sentence.
        instead: what needs no such message, or the smaller model that is always proposed.

    Raises:
        ValueError: it is longer than `MAX_BYTES`.

    >>> check_length(2 * 7_615_616_512, "all weights in 16 bit")
    Traceback (most recent call last):
        ...
    ValueError: all weights in 16 bit take 14.2 GiB, and a message at most 4.0; take a smaller model, or another method
    """
    if length_b > MAX_BYTES:
        raise ValueError(
            f"{what} take {length_b / 2**30:.1f} GiB, and a message at most {MAX_BYTES / 2**30:.1f}; take a smaller "
            f"model, or {instead}"
        )


def _encode_section(section: Section) -> bytes:
    array = section.array
    if array.dtype.name not in DTYPES:
        raise ValueError(f"section {section.name!r}: dtype {array.dtype} does not travel, use one of {DTYPES}")
    name = section.name.encode()
    if len(name) > 255:
        raise ValueError(f"the name of a section takes at most 255 bytes, {section.name[:40]!r}... takes {len(name)}")
    compressed, small = _STORED.get(id(array)) or _packed(array)
    kind = 32 * COLUMNS.index(section.column) + 2 * DTYPES.index(array.dtype.name) + compressed
    sides = b"".join(_number(side) for side in array.shape)
    return _SECTION.pack(kind, array.ndim, len(name)) + _number(len(small)) + name + sides + small


def _number(value: int) -> bytes:
    """Seven bits a byte, lowest first, the eighth where more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_number(payload: bytes, offset: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for place, byte in enumerate(payload[offset : offset + _LONGEST]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if place and not byte:
                raise ValueError("a length or side in a section is written with more bytes than it takes")
            return value, offset + place + 1
    raise ValueError("the frame ends inside a length or side of a section, or that is beyond 63 bits")


def _packed(array: Array) -> tuple[bool, bytes]:
    raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    packed = zstandard.compress(raw)
    return (True, packed) if len(packed) < len(raw) else (False, raw)


def decode(payload: bytes, max_bytes: int = MAX_BYTES) -> Arrays:
    """Arrays of a frame by name, checked at every step.

    Args:
        payload: what arrived.
        max_bytes: most bytes all arrays together may take in memory.

    Returns:
        The arrays, not to be written to; whoever decodes the same bytes in this process shares them.

    Raises:
        ValueError: not a frame, truncated, unknown type, size that does not fit its shape, over the limit,
            a name twice, bytes left over.
    """
    known = payload.arrays if isinstance(payload, Payload) else None
    if known is not None and sum(a.nbytes for a in known.values()) <= max_bytes:
        return known
    if len(payload) < _HEAD.size:
        raise ValueError(f"a frame has at least {_HEAD.size} bytes, this one {len(payload)}")
    magic, count = _HEAD.unpack_from(payload)
    if magic != MAGIC or count > MAX_SECTIONS:
        raise ValueError(f"not a frame of this version: starts with {magic!r}, {count} sections")
    arrays: dict[str, Array] = {}
    offset, room = _HEAD.size, max_bytes
    for _ in range(count):
        name, array, offset = _decode_section(payload, offset, room)
        if name in arrays:
            raise ValueError(f"section {name!r} comes twice")
        arrays[name] = array
        room -= array.nbytes
    if offset != len(payload):
        raise ValueError(f"{len(payload) - offset} bytes follow the last section")
    found = MappingProxyType(arrays)
    if isinstance(payload, Payload):
        payload.arrays = found
    return found


def _decode_section(payload: bytes, offset: int, room: int) -> tuple[str, Array, int]:
    if len(payload) < offset + _SECTION.size:
        raise ValueError("the frame ends inside the head of a section")
    first, ndim, name_length = _SECTION.unpack_from(payload, offset)
    column, kind, compressed = first >> 5, first >> 1 & 15, first & 1
    if column >= len(COLUMNS) or kind >= len(DTYPES):
        raise ValueError(f"a section of unknown column {column} or type {kind}")
    stored, start = _read_number(payload, offset + _SECTION.size)
    body = start + name_length
    if len(payload) < body + stored:
        raise ValueError(f"the frame ends inside a section that announces {stored} bytes")
    try:
        name = payload[start:body].decode()
    except UnicodeDecodeError:
        raise ValueError("the name of a section is not UTF-8") from None
    shape: tuple[int, ...] = ()
    for _ in range(ndim):
        side, body = _read_number(payload, body)
        shape += (side,)
    if len(payload) < body + stored:
        raise ValueError(f"the frame ends inside a section that announces {stored} bytes")
    dtype = np.dtype(DTYPES[kind]).newbyteorder("<")
    size = dtype.itemsize
    for side in shape:
        size *= side
    if size > room:
        raise ValueError(f"section {name!r} of shape {shape} exceeds the {room} bytes left to this frame")
    held = payload[body : body + stored]
    seen = blake2b(struct.pack(f"<BBB{ndim}Q", kind, compressed, ndim, *shape), digest_size=16)
    seen.update(held)
    key = seen.digest()
    array = _READ.get(key)
    if array is None:
        raw = _expand(held, size, name) if compressed else held
        if len(raw) != size:
            raise ValueError(f"section {name!r} holds {len(raw)} bytes, its shape {shape} needs {size}")
        array = _READ[key] = np.frombuffer(raw, dtype=dtype).reshape(shape)
        if len(held) <= size:
            _STORED[id(array)] = bool(compressed), held
            finalize(array, _STORED.pop, id(array), None).atexit = False
    return name, array, body + stored


def _expand(raw: bytes, size: int, name: str) -> bytes:
    """Decompress until more than `size` bytes came, whatever the stream claims about itself.

    Piece by piece, because asking for all at once takes the memory before a byte has shown that it is needed.
    """
    out = bytearray()
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw) as reader:
            while len(out) <= size and (piece := reader.read(_PIECE)):
                out += piece
    except zstandard.ZstdError as error:
        raise ValueError(f"section {name!r} does not decompress: {error}") from None
    return bytes(out)
