"""Paths, new files and reading errors as a user means them."""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

from issun.runtime.errors import ParameterError

_UTF_8 = "utf-8"
_MOST_BYTES = 64 << 20  # of a text that the user names
_PART = 1 << 20
_ISO_2022_JP = re.compile(rb"\x1b(?:\$[@B]|\([IJ])")
# Kana and kanji in UTF-8, the last perhaps cut off. Here and there Shift JIS looks like one.
_JAPANESE_UTF8 = re.compile(rb"[\xe3-\xe9][\x80-\xbf](?:[\x80-\xbf]|\s*\Z)")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")


def user_path(path: str | Path) -> Path:
    """`path` with `~` made a home folder; raises ParameterError for what cannot be a path."""
    if not str(path).strip() or "\0" in str(path):
        raise ParameterError("{path!r} is no path.", path=str(path))
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~somebody who has no home here
        return Path(path)


# Longest first: UTF-16's mark is the beginning of UTF-32's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def as_utf8(raw: bytes) -> bytes:
    """What a user's file holds as UTF-8 without a byte-order mark.

    Windows writes such marks, and PowerShell's `>` writes UTF-16. What has no mark is returned as
    it is. Raises UnicodeDecodeError for damaged text behind a mark.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            if encoding == "utf-8-sig":
                return raw.removeprefix(mark)
            return raw.decode(encoding).encode()
    return raw


def open_regular(path: Path) -> BufferedReader:
    """Open a file to be read; raises OSError for a pipe or a device, which might never end."""
    found = path.stat().st_mode
    if stat.S_ISDIR(found):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path.open("rb")


def read_text(path: str | Path) -> str:
    """The text of a file that the user named; ParameterError says why it cannot be read."""
    path = user_path(path)
    try:
        with path.open("rb") as file:
            text = decode_utf8(as_utf8(read_bounded(file, _MOST_BYTES)))
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_bounded(file: IO[bytes], most: int) -> bytes:
    """The rest of a file or a pipe; raises OSError where that is more than `most` bytes."""
    too_large = OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if os.fstat(file.fileno()).st_size > most:
        raise too_large
    parts, left = [], most
    while part := file.read(_PART):  # a large size would take that memory at once
        left -= len(part)
        if left < 0:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def decode_utf8(raw: bytes) -> str:
    """`raw` as UTF-8 without its byte-order mark; raises UnicodeDecodeError.

    ISO-2022-JP is valid UTF-8 by its bytes. No text holds its escape sequences, so it raises too.
    """
    if escape := _ISO_2022_JP.search(raw):
        raise UnicodeDecodeError(_UTF_8, raw, *escape.span(), "an escape sequence of ISO-2022-JP")
    return raw.decode("utf-8-sig")


def guess_encoding(raw: bytes) -> str | None:
    """What text that is not UTF-8 is probably encoded in, as iconv and Python name it.

    None where nothing fits, and where `raw` is UTF-8 but for a damaged place.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if _ISO_2022_JP.search(raw):
        return "iso-2022-jp"
    if b"\0" in raw:
        # The upper bytes of Latin letters and of kana.
        even, odd = (sum(map(half.count, b"\0\x30")) for half in (raw[::2], raw[1::2]))
        return "utf-16-le" if odd >= even else "utf-16-be"
    if 2 * sum(map(len, _JAPANESE_UTF8.findall(raw))) > len(_NOT_ASCII.findall(raw)):
        return None
    # Text in Shift JIS is hardly ever valid as EUC-JP, while the reverse is common.
    return next((name for name in ("euc-jp", "cp932") if _is_text_in(name, raw)), None)


def _is_text_in(encoding: str, raw: bytes) -> bool:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return not any("\ue000" <= character <= "\uf8ff" for character in text)  # user-defined ones


def reason_of(error: Exception) -> str:
    """Why reading or writing failed, without the path, which the message names."""
    if isinstance(error, UnicodeDecodeError):
        if error.encoding.startswith(("utf-16", "utf-32")):  # its mark says so
            return f"it is {error.encoding}, and damaged (byte {error.start + 1})"
        if encoding := guess_encoding(error.object):
            return f"it is {encoding}, not UTF-8: `iconv -f {encoding} -t utf-8` converts it"
        return f"it is not UTF-8 (byte {error.start + 1})"
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file of its owner's, to be written; it is at `path` when the block ends well, and whole.

    A process that is killed on the way leaves nothing at `path`, but a `.issun.*` beside it. Raises
    OSError, of which FileExistsError where `path` exists.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".issun.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        _put(Path(name), path)
    finally:
        Path(name).unlink(missing_ok=True)


def _put(file: Path, path: Path) -> None:
    """Let `file` be at `path`, unless something is there."""
    if os.name == "nt":
        file.rename(path)
        return
    try:
        os.link(file, path)
    except FileExistsError:
        raise
    except OSError:  # of a file system without links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        file.replace(path)
