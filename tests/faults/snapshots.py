"""Makes a parent whose sequence numbers are nearly used up, without two thousand million creates.

The count of creates under a node (`cversion`) stands in the server's snapshot. A snapshot is a header, the sessions,
the ACLs and the nodes, each a path and its record, then the Adler-32 sum of all that. Logs that follow it are taken
away, and so is the digest behind it, which servers before 3.6 do not write either.

Source: FileSnap, SnapStream, DataTree and ReferenceCountedACLCache of ZooKeeper 3.5 to 3.9.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Final, final

__all__ = ["set_cversion"]

_RECORD: Final = struct.Struct(">qqqqqiiiqq")
"""The ACL's number; czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, pzxid."""
_CVERSION_AT: Final = struct.calcsize(">qqqqqi")


@final
class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, layout: str) -> tuple[int, ...]:
        fields = struct.unpack_from(f">{layout}", self.data, self.at)
        self.at += struct.calcsize(f">{layout}")
        return fields

    def buffer(self) -> bytes:
        (length,) = self.take("i")
        start = self.at
        self.at += max(0, length)  # -1: none at all
        return self.data[start : self.at]


def set_cversion(data: Path, path: str, cversion: int) -> None:
    """Set how many children have been created under a node, in a server's data directory. The server must not run.

    Raises:
        LookupError: The newest snapshot does not hold that node; start the server once more, which writes one.
    """
    directory = data / "version-2"
    newest = max(directory.glob("snapshot.*"), key=lambda file: int(file.suffix[1:], 16))
    content = bytearray(newest.read_bytes())
    reader = _Reader(bytes(content))
    reader.take("iiq")  # magic number, version, id of the database
    for _ in range(reader.take("i")[0]):
        reader.take("qi")  # a session and its timeout
    for _ in range(reader.take("i")[0]):
        reader.take("q")  # the number of an ACL
        for _ in range(reader.take("i")[0]):
            reader.take("i")
            reader.buffer()
            reader.buffer()
    found = False
    while (name := reader.buffer()) != b"/":
        reader.buffer()
        if name == path.encode():
            struct.pack_into(">i", content, reader.at + _CVERSION_AT, cversion)
            found = True
        reader.at += _RECORD.size
    if not found:
        raise LookupError(path)
    body = bytes(content[: reader.at])
    newest.write_bytes(body + struct.pack(">q", zlib.adler32(body)) + struct.pack(">i", 1) + b"/")
    for file in directory.glob("*"):
        if file.name.startswith(("log.", "snapshot.")) and file != newest:
            file.unlink()
