"""Whether a file that its writer writes once (Parquet, .pt, .json, compressed) is whole already."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from drpo.errors import DataError
from drpo.inspection.readers.json_file import LARGEST, is_jsonl
from drpo.inspection.readers.json_records import decompressed
from drpo.json_lines import parse_json

#: At the end of every Parquet file, behind the footer that is written when it is closed; with an encrypted footer, the
#: second one.
_PARQUET_ENDS = (b"PAR1", b"PARE")
#: At the beginning of a zip file, as torch.save writes it.
_ZIP = b"PK"


def is_whole(file: Path) -> bool:
    """Whether ``file`` has the end that its format asks for; what else may be wrong with it is its reader's to say.

    Raises:
        ConfigError: it is compressed with zstd, and pyarrow is not installed. OSError: it cannot be read.
    """
    return next((ends for ending, ends in _ENDS.items() if file.name.lower().endswith(ending)), _always)(file)


def _always(file: Path) -> bool:
    return True


def _parquet_ends(file: Path) -> bool:
    with file.open("rb") as stream:
        content = stream.seek(0, 2)
        if content < 12:
            return False
        stream.seek(-4, 2)
        return stream.read(4) in _PARQUET_ENDS


def _torch_ends(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(len(_ZIP))
    return bool(start) and (start != _ZIP or zipfile.is_zipfile(file))


def _json_ends(file: Path) -> bool:
    if not file.stat().st_size:
        return False
    if is_jsonl(file) or file.stat().st_size > LARGEST:
        return True
    try:
        parse_json(file.read_bytes(), str(file))
    except DataError:
        return False
    return True


def _compressed_ends(file: Path) -> bool:
    try:
        with file.open("rb") as raw:
            stream = decompressed(file, raw)
            while stream.read(1 << 20):
                pass
    except (EOFError, zlib.error):
        return False
    except OSError as error:  # without a number: the compressed data are wrong
        if error.errno is not None:
            raise
        return False
    return bool(file.stat().st_size)


#: Ending → whether a file of that kind is whole.
_ENDS: dict[str, Callable[[Path], bool]] = {
    ".parquet": _parquet_ends,
    ".pt": _torch_ends,
    ".json": _json_ends,
    ".gz": _compressed_ends,
    ".zst": _compressed_ends,
}
