"""A frame as bytes: a compressed NumPy archive, values in single precision. No pickle: the bytes come from outside."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Final

import numpy as np

from kintsugi.domain.frame import Frame

MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one array once unpacked: what claims to be larger is damaged, or made to fill the memory."""


class BadFrameError(ValueError):
    """Bytes that are no frame: what is wrong with them."""


def pack(frame: Frame) -> bytes:
    """`frame` as bytes that `unpack` reads back: times exactly, values to seven digits."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        signals=np.array(frame.signals, dtype=np.str_),
        times=frame.times,
        values=np.where(frame.mask, frame.values, np.nan).astype(np.float32),
        interval=np.float64(frame.interval),
    )
    return buffer.getvalue()


def unpack(data: bytes) -> Frame:
    """The frame that was packed.

    Raises:
        BadFrameError: it is none; it says why.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(item.file_size > MOST_BYTES for item in archive.infolist()):
                raise BadFrameError(f"a part of it is larger than {MOST_BYTES} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            signals = tuple(str(name) for name in arrays["signals"])
            times = np.asarray(arrays["times"], dtype=np.float64)
            values = np.asarray(arrays["values"], dtype=np.float64)
            interval = float(arrays["interval"])
    except BadFrameError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        ValueError,
        TypeError,
        OSError,
        EOFError,
        NotImplementedError,
    ) as error:
        raise BadFrameError(f"it can't be unpacked ({type(error).__name__}: {error})") from error
    if times.ndim != 1 or values.shape != (len(times), len(signals)):
        raise BadFrameError(f"{values.shape} values for {times.shape} times and {len(signals)} signals")
    return Frame(signals, times, values, np.isfinite(values), interval)
