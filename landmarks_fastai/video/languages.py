"""Languages of tracks: QuickTime files (.mov) store a number for some of them, other containers ISO 639-2."""

from __future__ import annotations

QUICKTIME = "mov"
"""FFmpeg's name of the container."""

QUICKTIME_LANGUAGES = frozenset(
    {
        *("eng", "fra", "ger", "ita", "dut", "sve", "spa", "dan", "por", "nor", "heb", "jpn", "ara", "fin"),
        *("gre", "ice", "tur", "chi", "urd", "hin", "tha", "kor", "lit", "pol", "hun", "est", "lav", "rus"),
        *("alb", "ron", "ces", "slk", "slv", "mac", "bul", "ukr", "arm", "geo", "per", "tib", "bur", "vie"),
        *("ind", "may", "wel", "baq", "cat", "lat"),
    }
)
"""The languages, by FFmpeg's names, that QuickTime has a number for (QuickTime File Format, "Language Code
Values")."""

SYNONYMS = {
    "fre": "fra",
    "deu": "ger",
    "nld": "dut",
    "swe": "sve",
    "nob": "nor",
    "cze": "ces",
    "slo": "slk",
    "ell": "gre",
    "zho": "chi",
    "msa": "may",
    "rum": "ron",
    "isl": "ice",
    "mkd": "mac",
    "sqi": "alb",
    "fas": "per",
    "kat": "geo",
    "hye": "arm",
    "eus": "baq",
    "cym": "wel",
    "bod": "tib",
    "mya": "bur",
}
"""The other code of ISO 639-2 for the languages that have two."""


def stored_language(language: str, container: str) -> str | None:
    """Return the code of a language that FFmpeg can store in a container; None if it cannot."""
    if container != QUICKTIME or language == "und":
        return language
    code = SYNONYMS.get(language, language)
    return code if code in QUICKTIME_LANGUAGES else None
