"""Turn the instances of a revision into axial slices in exact Hounsfield units, in order.

`structure` looks a file over, `files` opens it, `attributes` reads values that may be anything;
`frames` finds the bytes of a frame, `streams` reads what they say of themselves, `codecs` decodes
them, `pixels` cuts stored values out, `decoding` gives HU; `geometry` says where a slice lies,
`stacking` what belongs together.
Pure: files in, values out; nothing is guessed, what cannot be had is said with a Reason.
"""
