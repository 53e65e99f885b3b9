"""Conversion of HDR (HLG and PQ) and of wide-gamut SDR to BT.709, the colors of models and of videos written.

Transfer functions: ITU-R BT.2100-2, tables 4 (PQ) and 5 (HLG), and BT.709-6, item 1.2. Levels: ITU-R BT.2408,
which assigns SDR white to 203 cd/m² in PQ and to a signal of 75 % in HLG. HLG describes the light of the
scene, like BT.709, and is converted scene-referred; PQ describes the light of a display, whose gamma of 2.4
(BT.1886) is inverted. FFmpeg's filters for this need the library zimg, which PyAV's wheels do not contain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PQ, HLG = 16, 18
"""Codes of HDR transfer functions (ITU-T H.273, TransferCharacteristics)."""

SDR_TRANSFERS = (1, 6, 14, 15)
"""Codes of the transfer functions that equal that of BT.709: BT.709, BT.601 and BT.2020."""

BT2020 = 9
"""Code of the color primaries (ITU-T H.273, ColourPrimaries)."""

BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Matrix from linear RGB with the primaries of BT.2020 to those of BT.709 (ITU-R BT.2087-0, table 4)."""

PQ_WHITE = 203.0
"""Luminance of SDR white in PQ, cd/m² (BT.2408, table 1)."""

HLG_WHITE_SIGNAL = 0.75
"""HLG signal of SDR white (BT.2408, table 1)."""

PQ_PEAK = 1000.0
"""Luminance that becomes the maximum, cd/m²: that of the displays most PQ is mastered for."""

KNEE = 0.8
"""Linear level, relative to SDR white, above which highlights are compressed."""

CODES = 1 << 16

HDR_NAMES = {PQ: "HDR (PQ)", HLG: "HDR (HLG)"}


class ToneMapper:
    """Converts RGB images of one transfer function and set of primaries to BT.709.

    Parameters
    ----------
    transfer, primaries
        Codes of ITU-T H.273.
    """

    def __init__(self, transfer: int, primaries: int) -> None:
        signal = np.linspace(0, 1, CODES)
        if transfer == PQ:
            linear, peak = pq_to_luminance(signal) / PQ_WHITE, PQ_PEAK / PQ_WHITE
            encoded = signal ** (1 / 2.4)
        else:
            white = float(hlg_to_linear(np.array(HLG_WHITE_SIGNAL)))
            linear = hlg_to_linear(signal) / white if transfer == HLG else bt709_to_linear(signal)
            peak, encoded = float(linear[-1]), linear_to_bt709(signal)
        self._to_linear = linear.astype(np.float32)
        self._encode = np.rint(255 * encoded).astype(np.uint8)
        self._wide = primaries == BT2020
        self._peak = peak

    def __call__(self, image: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 BT.709 image of an (H, W, 3) uint16 RGB image of full range."""
        linear = self._to_linear[image]
        if self._wide:
            linear = linear @ BT2020_TO_BT709.T
        np.maximum(linear, 0, out=linear)
        # the largest channel is compressed, and the others by the same factor, which keeps the hue
        largest = linear.max(axis=2)
        factor = np.ones_like(largest)
        bright = largest > KNEE
        factor[bright] = compress_highlights(largest[bright], self._peak) / largest[bright]
        linear *= factor[..., None]
        codes = np.rint(np.minimum(linear, 1) * (CODES - 1)).astype(np.uint16)
        return np.asarray(self._encode[codes], np.uint8)


def tone_mapper_of(transfer: int, primaries: int) -> ToneMapper | None:
    """Return the conversion for a video with these codes of ITU-T H.273; None if it needs none."""
    if transfer in (PQ, HLG) or (primaries == BT2020 and transfer in SDR_TRANSFERS):
        return ToneMapper(transfer, primaries)
    return None


def pq_to_luminance(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the luminance in cd/m² of a PQ signal from 0 to 1 (BT.2100, table 4, EOTF)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def hlg_to_linear(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the linear light of the scene, from 0 to 1, of an HLG signal (BT.2100, table 5, inverse)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def bt709_to_linear(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the linear light of the scene, from 0 to 1, of a BT.709 signal (inverse of item 1.2)."""
    return np.where(signal < 0.081, signal / 4.5, ((signal + 0.099) / 1.099) ** (1 / 0.45))


def linear_to_bt709(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the BT.709 signal, from 0 to 1, of linear light (item 1.2)."""
    return np.where(linear < 0.018, 4.5 * linear, 1.099 * linear**0.45 - 0.099)


def compress_highlights(level: NDArray[np.float32], peak: float) -> NDArray[np.float32]:
    """Map levels from `KNEE` to `peak` to levels from `KNEE` to 1, with slope 1 at the knee.

    The curve is that of Reinhard et al. 2002, "Photographic tone reproduction for digital images", eq. 4.
    Nothing is compressed if the peak is 1, as in SDR.
    """
    if peak <= 1:
        return np.minimum(level, np.float32(1))
    excess, most = (level - KNEE) / (1 - KNEE), (peak - KNEE) / (1 - KNEE)
    mapped = excess * (1 + excess / most**2) / (1 + excess)
    return np.asarray(KNEE + (1 - KNEE) * np.minimum(mapped, 1), np.float32)
