"""DICOM files of given pixels and fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def write_dicom(path: Path, pixels: np.ndarray, colours: str, bits: int = 0, **fields: object) -> Path:
    """One frame [H, W(, 3)], or, with NumberOfFrames, several; bits: stored, 0 for all of the type."""
    dataset = dicom_dataset(path, ExplicitVRLittleEndian)
    colour = pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = colours
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    if colour:
        dataset.PlanarConfiguration = 0
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    return save_dicom(dataset, path)


def dicom_dataset(path: Path, syntax: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    return FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)


def save_dicom(dataset: FileDataset, path: Path) -> Path:
    pydicom.dcmwrite(path, dataset)
    return path
