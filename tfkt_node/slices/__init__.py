"""Turn the instances of a revision into axial slices in exact Hounsfield units, in order.

`attributes` reads data sets that may hold anything, `decoding` gives pixels, `geometry` stacks.
Pure: files in, values out; nothing is guessed, what cannot be had is said with a Reason.
"""
