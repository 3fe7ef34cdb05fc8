"""TFDS builders, one per dataset: they write prepared photographs as ArrayRecord or TFRecord."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

import numpy as np
import tensorflow_datasets as tfds
from absl import logging


class Record(NamedTuple):
    """One prepared photograph: `png` is the file with its pixels, the rest goes into the dataset as it is."""

    png: Path
    file: str
    label: int
    patient: str
    eye: str
    split: str


@dataclasses.dataclass(eq=False)
class FundusConfig(tfds.core.BuilderConfig):
    """resolution: side in pixels. label_names: empty where there are none. records: what is written.
    on_record: called after each record (progress)."""

    resolution: int = 512
    label_names: tuple[str, ...] = ()
    records: Sequence[Record] = dataclasses.field(default=(), repr=False)
    on_record: Callable[[], None] | None = dataclasses.field(default=None, repr=False)


class FundusBuilder(tfds.core.GeneratorBasedBuilder):
    """What the datasets share: features, and one TFDS split per side of the patients."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""
    HOMEPAGE: str | None = None
    CITATION: str | None = None
    # Nothing is downloaded, so there are no checksums beside the code; TFDS 4.9.10 would look for them with
    # importlib_resources, which it does not require on Python >= 3.9.
    code_path = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(skip_registration=True, **kwargs)  # never built by name alone

    @property
    def fundus(self) -> FundusConfig:
        config = self.builder_config
        if not isinstance(config, FundusConfig):
            raise TypeError(f"{self.name} is built with config=FundusConfig(...); to read it use its folder")
        return config

    def _info(self) -> tfds.core.DatasetInfo:
        names, size = self.fundus.label_names, self.fundus.resolution
        unknown = any(record.label < 0 for record in self.fundus.records)
        # ClassLabel cannot store -1 (unknown): with unlabelled photographs the label is a plain number
        label = tfds.features.ClassLabel(names=list(names)) if names and not unknown else np.int64
        return self.dataset_info_from_configs(
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(size, size, 3), dtype=np.uint8, encoding_format="png"
                    ),
                    "label": label,
                    "patient": tfds.features.Text(),
                    "eye": tfds.features.Text(),
                    "split": tfds.features.Text(),
                    "file": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded: the photographs were prepared before
        splits = sorted({record.split for record in self.fundus.records})
        return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for record in self.fundus.records:
            if record.split == split:
                example = record._asdict()
                example["image"] = example.pop("png").read_bytes()  # a PNG already: not encoded again
                yield record.file, example
                if self.fundus.on_record:
                    self.fundus.on_record()


class Folder(FundusBuilder):
    """Any folder of photographs."""

    DESCRIPTION = "Fundus photographs of one folder, field of view centred, square, by patient."


class Ddr(FundusBuilder):
    """DDR."""

    DESCRIPTION = "DDR: fundus photographs graded for diabetic retinopathy (0-4); ungradable ones left out."
    HOMEPAGE = "https://github.com/nkicsl/DDR-dataset"
    CITATION = "Li et al., Diagnostic assessment of deep learning algorithms for diabetic retinopathy, 2019."


class Idrid(FundusBuilder):
    """IDRiD."""

    DESCRIPTION = "IDRiD part B: fundus photographs graded for diabetic retinopathy and macular edema."
    HOMEPAGE = "https://idrid.grand-challenge.org"
    CITATION = "Porwal et al., Indian Diabetic Retinopathy Image Dataset (IDRiD), Data 3(3), 2018."


class Drive(FundusBuilder):
    """DRIVE."""

    DESCRIPTION = "DRIVE: 40 fundus photographs whose vessels were traced by hand."
    HOMEPAGE = "https://drive.grand-challenge.org"
    CITATION = "Staal et al., Ridge-based vessel segmentation in color images of the retina, IEEE TMI, 2004."


class Odir(FundusBuilder):
    """ODIR-5K."""

    DESCRIPTION = "ODIR-5K: left and right fundus photographs of 5,000 patients, eight labels of the patient."
    HOMEPAGE = "https://odir2019.grand-challenge.org"
    CITATION = "Peking University International Competition on Ocular Disease Intelligent Recognition, 2019."


BUILDERS: dict[str, type[FundusBuilder]] = {
    "folder": Folder,
    "ddr": Ddr,
    "idrid": Idrid,
    "drive": Drive,
    "odir": Odir,
}


def build(dataset: str, directory: Path, config: FundusConfig, file_format: str) -> Path:
    """Writes the dataset below `directory` and returns its folder.

    TFDS writes into a folder named '...incomplete...' and renames it at the end, so that a killed run
    leaves no folder that looks whole.
    """
    with quiet():
        builder = BUILDERS[dataset](data_dir=directory, config=config)
        builder.download_and_prepare(
            file_format=file_format,
            download_dir=directory / "downloads",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
    shutil.rmtree(directory / "downloads", ignore_errors=True)  # TFDS makes it even where nothing is fetched
    return Path(builder.data_dir)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences TFDS's own bars, remarks about sizes and warnings: the command says what the user needs."""
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
