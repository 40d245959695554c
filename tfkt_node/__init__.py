"""A DICOM node that gates the image quality of CT."""

__version__ = "0.1.0"
