"""Files inside of zip and tar archives, read in place. A path names one as `shard.tar!/folder/a.jpg`."""

import os
import re
import struct
import tarfile
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pos_hf.errors import FileInputError

SUFFIXES = (".tar", ".zip")
INSIDE = re.compile(r"(.+?\.(?:tar|zip))!(?:/(.*))?", re.IGNORECASE | re.DOTALL)
LOCAL_HEADER = struct.Struct("<26xHH")  # lengths of name and further fields, before a member of a zip archive


class Member(NamedTuple):
    """Where a file's bytes are in its archive."""

    start: int
    size: int
    packed: int | None = None
    """Bytes that they are deflated to, in a zip archive; None as they are."""
    has_header: bool = False
    """`start` is that of a zip's local header."""


def inside_archive(path: str | Path) -> tuple[str, str] | None:
    """The archive and the name in it of a path that leads into one; an empty name is all of it."""
    match = INSIDE.fullmatch(str(path))
    return (match[1], match[2] or "") if match else None


def has_folder(path: str | Path) -> bool:
    """Whether a path leads to a folder in an archive, or to all of one."""
    parts = inside_archive(path)
    if parts is None or not os.path.isfile(parts[0]):
        return False
    return not parts[1] or any(name.startswith(f"{parts[1]}/") for name in list_members(parts[0]))


def list_members(archive: str) -> list[str]:
    """Names of the files in an archive, in its order.

    Raises:
        InputError: It cannot be read, or packs its files in a way that is not read in place.
    """
    status = os.stat(archive)
    return list(_members(archive, status.st_mtime_ns, status.st_size))


def read_member(path: str) -> bytes:
    """The content of a file in an archive.

    Raises:
        InputError: There is none of that name, or it is damaged.
    """
    parts = inside_archive(path)
    assert parts is not None
    archive, name = parts
    status = os.stat(archive)
    return _content(archive, name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)  # who asks what a file is reads it next
def _content(archive: str, name: str, changed: int, size: int) -> bytes:
    path = f"{archive}!/{name}"
    member = _members(archive, changed, size).get(name)
    if member is None:
        raise FileInputError(path, "is not in the archive: correct its name", cause="unreadable")
    with open(archive, "rb") as file:
        file.seek(member.start)
        if member.has_header:
            file.seek(sum(LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))), os.SEEK_CUR)
        if member.packed is None:
            content = file.read(member.size)
        else:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(member.packed), member.size)
    if len(content) != member.size:
        raise FileInputError(path, "ends too early: replace the archive", cause="unreadable")
    return content


@lru_cache(maxsize=256)
def _members(archive: str, changed: int, size: int) -> dict[str, Member]:
    """All files of an archive by name; kept, for a worker reads thousands of them."""
    try:
        if archive.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                return {
                    info.filename: _zipped(info, archive) for info in opened.infolist() if not info.is_dir()
                }
        with tarfile.open(archive, "r:") as opened:
            files = (info for info in opened if info.isfile())
            return {os.path.normpath(info.name): Member(info.offset_data, info.size) for info in files}
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        problem = "cannot be read as an archive: replace it (a .tar.gz must be unpacked)"
        raise FileInputError(archive, problem, cause="unreadable") from error


def _zipped(info: zipfile.ZipInfo, archive: str) -> Member:
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FileInputError(archive, f"holds {info.filename} encrypted or packed unusually: unpack it")
    packed = info.compress_size if info.compress_type == zipfile.ZIP_DEFLATED else None
    return Member(info.header_offset, info.file_size, packed, has_header=True)
