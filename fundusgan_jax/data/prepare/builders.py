"""TFDS builders, one per dataset: they make a dataset of shards of prepared photographs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fundusgan_jax.data.prepare.shards import (  # first: it says what TensorFlow is to print
    Layout,
    Shard,
    features_of,
)

# isort: split
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

# TFDS writes a builder's module into the dataset: always this name, so that moved code does not change a dataset's bytes.
RECORDED_MODULE = "fundusgan_jax.data.builders"


@dataclasses.dataclass(eq=False)
class FundusConfig(tfds.core.BuilderConfig):
    """layout: what an example looks like. shards: split -> the shards of it, written."""

    layout: Layout = Layout(512, (), False, "array_record")
    shards: Mapping[str, Sequence[Shard]] = dataclasses.field(default_factory=dict, repr=False)


class FundusBuilder(FileReaderBuilder):
    """What the datasets share: features, and one TFDS split per side of the patients.

    The shards are written before, by whichever processes or machines there are (`shards.write_shard`): TFDS'
    own writers cut a split into shards otherwise with Beam than without, and a dataset is to be the same bytes.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""
    HOMEPAGE: str | None = None
    CITATION: str | None = None
    # Nothing is downloaded, so there are no checksums beside the code; TFDS 4.9.10 would look for them with
    # importlib_resources, which it does not require on Python >= 3.9.
    code_path = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(skip_registration=True, **kwargs)  # never built by name alone
        cls.__module__ = RECORDED_MODULE

    @property
    def fundus(self) -> FundusConfig:
        config = self.builder_config
        if not isinstance(config, FundusConfig):
            raise TypeError(f"{self.name} is built with config=FundusConfig(...); to read it use its folder")
        return config

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.DESCRIPTION,
            features=features_of(self.fundus.layout),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Moves the shards into the dataset's folder, which TFDS renames when everything is in it."""
        del dl_manager, download_config  # nothing is downloaded
        splits = []
        for name, shards in self.fundus.shards.items():
            template = self._get_filename_template(split_name=name)
            size = sum(os.path.getsize(shard.path) for shard in shards)
            for index, shard in enumerate(shards):
                os.replace(shard.path, template.sharded_filepath(shard_index=index, num_shards=len(shards)))
            splits.append(
                tfds.core.SplitInfo(
                    name=name,
                    shard_lengths=[shard.length for shard in shards],
                    num_bytes=size,
                    filename_template=template,
                )
            )
        self.info.set_splits(tfds.core.SplitDict(splits))


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


def build(dataset: str, directory: Path, config: FundusConfig) -> Path:
    """Makes the dataset below `directory` of the shards that are written, and returns its folder.

    TFDS writes into a folder named '...incomplete...' and renames it at the end, so that a killed run
    leaves no folder that looks whole.
    """
    with quiet():
        builder = BUILDERS[dataset](data_dir=directory, config=config)
        builder.download_and_prepare(
            file_format=config.layout.file_format,
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
