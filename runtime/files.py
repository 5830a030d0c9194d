"""Paths, text files and new files of the user."""

from __future__ import annotations

import codecs
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

from issun.runtime.errors import IssunError, ParameterError

_UTF_8 = "utf-8"
_MAX_BYTES = 64 << 20  # of a text file that the user names
_CHUNK = 1 << 20
CHECKSUM_BYTES = 4  # a CRC-32 at the end of a file
_ISO_2022_JP = re.compile(rb"\x1b(?:\$[@B]|\([IJ])")
# Kana and kanji in UTF-8, the last one perhaps truncated. Shift JIS seldom looks like one.
_JAPANESE_UTF8 = re.compile(rb"[\xe3-\xe9][\x80-\xbf](?:[\x80-\xbf]|\s*\Z)")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")


def user_path(path: str | Path) -> Path:
    """Return `path` with `~` expanded; raises ParameterError for text that cannot be a path."""
    if not str(path).strip() or "\0" in str(path):
        raise ParameterError("{path!r} is not a path.", path=str(path))
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~name of an unknown user
        return Path(path)


# Longest first: the mark of UTF-16 is a prefix of that of UTF-32.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def as_utf8(raw: bytes) -> bytes:
    """Return the content of a user's file as UTF-8 without a byte-order mark.

    Windows programs write such marks, and PowerShell's `>` writes UTF-16. Content without a mark is
    returned unchanged. Raises UnicodeDecodeError for damaged text after a mark.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            if encoding == "utf-8-sig":
                return raw.removeprefix(mark)
            return raw.decode(encoding).encode()
    return raw


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; raises OSError for a pipe or device, which might never end."""
    found = path.stat().st_mode
    if stat.S_ISDIR(found):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path.open("rb")


def read_text(path: str | Path) -> str:
    """Read a text file named by the user; raises ParameterError with the reason."""
    path = user_path(path)
    try:
        with path.open("rb") as file:
            text = decode_utf8(as_utf8(read_bounded(file, _MAX_BYTES)))
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_bounded(file: IO[bytes], limit: int) -> bytes:
    """Read the rest of a file or pipe; raises OSError if that is more than `limit` bytes."""
    too_large = OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if os.fstat(file.fileno()).st_size > limit:
        raise too_large
    chunks, left = [], limit
    while chunk := file.read(_CHUNK):  # read(limit) would allocate that much memory at once
        left -= len(chunk)
        if left < 0:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def decode_utf8(raw: bytes) -> str:
    """Decode UTF-8, with or without a byte-order mark; raises UnicodeDecodeError.

    ISO-2022-JP is valid UTF-8 byte by byte. Its escape sequences never occur in text, so they
    raise.
    """
    if escape := _ISO_2022_JP.search(raw):
        raise UnicodeDecodeError(_UTF_8, raw, *escape.span(), "an escape sequence of ISO-2022-JP")
    return raw.decode("utf-8-sig")


def guess_encoding(raw: bytes) -> str | None:
    """Guess the encoding of text that is not UTF-8, by the name that iconv and Python know.

    Returns None if nothing fits, or if `raw` is UTF-8 except for a damaged part.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if encoding != "utf-8-sig" and raw.startswith(mark):
            return encoding
    if _ISO_2022_JP.search(raw):
        return "iso-2022-jp"
    if b"\0" in raw:
        # The upper bytes of Latin letters and of kana.
        even, odd = (sum(map(half.count, b"\0\x30")) for half in (raw[::2], raw[1::2]))
        return "utf-16-le" if odd >= even else "utf-16-be"
    if 2 * sum(map(len, _JAPANESE_UTF8.findall(raw))) > len(_NOT_ASCII.findall(raw)):
        return None
    # Text in Shift JIS is rarely valid EUC-JP, while the reverse is common.
    return next((name for name in ("euc-jp", "cp932") if _is_text_in(name, raw)), None)


def _is_text_in(encoding: str, raw: bytes) -> bool:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return not any("\ue000" <= character <= "\uf8ff" for character in text)  # private use area


def reason_of(error: Exception) -> str:
    """Return why reading or writing failed, without the path, which the message has anyway."""
    if isinstance(error, UnicodeDecodeError):
        if error.encoding.startswith(("utf-16", "utf-32")):  # from its byte-order mark
            return f"it is {error.encoding}, and damaged (byte {error.start + 1})"
        if encoding := guess_encoding(error.object):
            return f"it is {encoding}, not UTF-8: `iconv -f {encoding} -t utf-8` converts it"
        return f"it is not UTF-8 (byte {error.start + 1})"
    return getattr(error, "strerror", None) or str(error)


def check_output(path: Path, error_type: type[IssunError] = ParameterError) -> None:
    """Raise an error, before any work, if no file can be written at `path`."""
    if path.is_dir() or not path.parent.is_dir():
        raise error_type(
            "{path} is a folder, or its folder does not exist: name a file.", path=path
        )


def check_columns(path: Path, names: Iterable[str], error_type: type[IssunError]) -> None:
    """Raise an error unless the columns of a table differ; of two with one name, one is lost."""
    counts = Counter(names)
    if (name := next((name for name in counts if counts[name] > 1), None)) is not None:
        raise error_type("{path} has several columns {name!r}: rename them.", path=path, name=name)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle to a folder that could be flushed
    # Windows flushes only what is open for writing.
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new private file for writing; it appears at `path`, complete, when the block succeeds.

    A process that is killed in between leaves at most a `.issun.*` file in the folder. Raises
    OSError, in particular FileExistsError if `path` exists.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".issun.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        _move_into_place(Path(name), path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside `target`, which is removed at the end unless it has been renamed.

    Raises OSError.
    """
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_into_place(file: Path, path: Path) -> None:
    """Move `file` to `path` unless that exists."""
    if os.name == "nt":
        file.rename(path)
        return
    try:
        os.link(file, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        file.replace(path)


def has_valid_checksum(path: Path) -> bool:
    """Return whether a file ends with the CRC-32 of what precedes it."""
    checksum, tail = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            tail += chunk
            checksum = zlib.crc32(tail[:-CHECKSUM_BYTES], checksum)
            tail = tail[-CHECKSUM_BYTES:]
    return tail == checksum.to_bytes(CHECKSUM_BYTES, "little")
