"""Networks and records of the cell before, kept for the next one of the same process."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.cell.loading.backbones import backbone_choice
from ablations.config import Config
from datamodules.cfp import CFPDataModule
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.loading import BackboneChoice, load_backbones


@dataclass(frozen=True)
class _Read:
    """Records as a data module read them, and the settings that decide about them."""

    settings: tuple
    records: object


class Kept:
    """Loads once what several cells need. Not for two cells at a time."""

    def __init__(self) -> None:
        self._choice: BackboneChoice | None = None
        self._backbones: Backbones | None = None
        self._read: _Read | None = None

    def backbones(self, config: Config) -> Backbones:
        """The config's networks, of which the last ones are kept. Raises as `load_backbones` does."""
        choice = backbone_choice(config)
        if self._backbones is None or self._choice != choice:
            self._backbones = self._read = None  # two sets of networks need not fit in memory
            self._backbones, self._choice = load_backbones(choice), choice
        self._backbones.text_to_image.set_speed(checkpoint=config.trainer.checkpoint_unet, compile=config.trainer.compile_unet)
        return self._backbones

    def read_records(self, config: Config, data: CFPDataModule) -> None:
        """Have `data` read its source, or use what an earlier cell read from it. Raises as `CFPDataModule.setup` does."""
        d = config.data
        settings = (
            *(d.source, d.images, d.test_source, d.own_split, d.num_train, d.num_validation, d.world, d.caption_dropout),
            *(d.image_size, d.clean_captions, d.max_bad_fraction),
            bool(data.encoders),
        )
        if self._read is not None and self._read.settings == settings:
            data.use_records(self._read.records)
        else:
            self._read = _Read(settings, data.read_records())
