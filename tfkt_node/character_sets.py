"""Which codec reads the texts of a data set, whatever its Specific Character Set holds."""

from __future__ import annotations

from pydicom.charset import python_encoding


def codec_of(character_set: bytes) -> str:
    """Return the Python codec of the first known term (PS3.3 C.12.1.1.2); Latin-1 reads anything.

    Terms with code extensions name a codec that follows the escapes of that family.
    """
    terms = [term.strip() for term in character_set.decode("latin-1").split("\\")]
    extended = [term for term in terms[1:] if term in python_encoding]
    for term in [*extended[:1], *terms]:
        if term in python_encoding:
            return str(python_encoding[term])
    return "latin-1"
