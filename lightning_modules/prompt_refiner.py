"""The prompt refiner and its training: E_T, A and N are trained through a frozen UNet, a frozen T5 and frozen image features.

Shapes in this file: B = batch, N = bank size, S = text positions, D = text width, H = T5's width, E = joint-space width,
K = feature vectors of an image, T = target tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from lightning_modules.backbones.backbones import Backbones
from lightning_modules.domain_adapter import DomainAdapter
from lightning_modules.finite_terms import FiniteTerms
from lightning_modules.frozen_features import ImageVectorEncoder, LatentEncoder
from lightning_modules.prompt_writing import write_rounds
from lightning_modules.readings import reading_named
from lightning_modules.settings import AdapterSettings, LossSettings, OptimizerSettings, Refinement, RefineSettings
from lightning_modules.step_chance import StepChance
from lightning_modules.terms import Term
from lightning_modules.text_encoder import text_mask
from lightning_modules.training_step import Step

# What E_T reads when A's output is scaled at step 0. The final norm gives all text states about the same size.
_SCALE_PROBE = "a picture"


class PromptRefinerModule(pl.LightningModule):
    """E_T -> A -> D_E and the losses that train it, each behind its switch; a term that is off is not computed at all.

    Trained: `text_encoder`, `adapter` and, with AFE, `afe`, made on the CPU wherever the backbones are. The backbones are frozen and no
    submodules: they are in no checkpoint, optimiser or DDP bucket. All randomness of a step is keyed by (seed, epoch, record id) out of
    the batch.
    """

    def __init__(
        self,
        backbones: Backbones,
        losses: LossSettings,
        optimizer: OptimizerSettings,
        seed: int,
        adapter: AdapterSettings | None = None,
    ):
        super().__init__()
        self.backbones = backbones
        self.losses = losses
        self.optimizer_settings = optimizer
        self.adapter_settings = adapter = adapter or AdapterSettings()
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.text_encoder = backbones.new_text_encoder()
            self.adapter = DomainAdapter(self.text_encoder.width, backbones.decoder.width, adapter.output_relu)
            if adapter.match_scale:
                with torch.no_grad():
                    states_BSD = self.text_encoder(backbones.tokenize([_SCALE_PROBE])).states_BSD
                self.adapter.match_scale(states_BSD, backbones.decoder.embedding_rms)
            self.afe = reading_named(losses.afe.reading)(backbones.joint_width, losses.afe) if losses.use_afe else None
            self.loss_terms = nn.ModuleDict({term.name: _loss_of(term, losses, backbones) for term in losses.terms()})
        self.encoders = _encoders_read_by(losses, backbones)
        self.finite = FiniteTerms()
        # A label of checkpoints: digests of the data and the frozen weights that these parameters were trained with.
        self.made_from: dict[str, str] = {}
        # What the last step has to be logged, left on the device. Lightning's own log of it, for the loggers and callbacks of any trainer,
        # takes 6 ms of a step whatever its size (on a CPU); whoever reads `logged` sets `logs` to False.
        self.logged: dict[str, Tensor] = {}
        self.logs = True
        # The processes that share each batch's records out; None: this one has whole batches.
        self.batch_group: ProcessGroup | None = None

    @property
    def feature_encoders(self) -> list:
        """The encoders of the frozen picture features that this arm's losses read; the data module caches them."""
        return list(self.encoders.values())

    @property
    def step_chance(self) -> StepChance | None:
        """Draws what a step needs of chance beforehand, in whatever loads the data; None for an arm without L_mse."""
        latents = self.encoders.get("latents")
        shape = latents.shapes()["latent_mean"] if latents else None
        return StepChance(self.seed, shape, self.backbones.text_to_image.num_timesteps) if shape else None

    def on_fit_start(self) -> None:
        self.backbones.to(self.device)

    @torch.no_grad()
    def start_afe(self, batches: Iterable[dict]) -> None:
        """Start a reading of AFE that starts from pictures: `batches` are of training records, at step 0 of a new training."""
        vectors, texts = [], []
        for batch in batches:
            step = Step(self, batch)
            vectors.append(step.pictures().vectors_MVE.float().cpu())
            if self.afe.asks_text:
                texts.append(self.text_encoder(batch["text_tokens_BS"].to(self.device)).pooled_BE.float().cpu())
        device = self.device
        self.afe.to("cpu").start(torch.cat(vectors), torch.cat(texts) if texts else None)
        self.afe.to(device)

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """All but the keys of a step's chance, which are read on the CPU: reading them from a device would wait for it."""
        keys = {"draw_seeds": batch["draw_seeds"]}
        rest = {name: value for name, value in batch.items() if name not in keys}
        return super().transfer_batch_to_device(rest, device, dataloader_idx) | keys

    def training_step(self, batch: dict, batch_index: int = 0) -> Tensor:
        terms, watched = self.compute_terms(batch)
        total = self.total_loss(terms)
        values = self._over_processes({"loss": total, **terms, **watched})
        self.finite.note({name: values[name] for name in terms})
        if self._trainer is None:
            self.finite.check(self.global_step)
        else:
            self.logged = {f"train/{name}": value for name, value in values.items()}
            if self.logs:
                self.log_dict(self.logged, batch_size=len(batch["ids_B"]))
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.finite.check(self.global_step, may_skip=self._scales_gradients)

    @property
    def _scales_gradients(self) -> bool:
        """Whether this is a training in float16, whose gradient scaler skips an update that is not finite."""
        return self._trainer is not None and getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def _over_processes(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars of what this process computes of a step -> those of all processes, detached, the same in each."""
        values = {name: value.detach() for name, value in values.items()}
        if self._trainer is None or self.trainer.world_size == 1:
            return values
        means = self.trainer.strategy.reduce(torch.stack([value.float() for value in values.values()]), reduce_op="mean")
        return dict(zip(values, means.unbind(), strict=True))

    def parameters_without_gradient(self) -> list[nn.Parameter]:
        """Trained parameters that nothing of this arm reaches, as what the pooled feature needs alone, or what weighs in AFE's twins."""
        reached = {part for term in self.losses.terms() for part in term.trains}
        unused: list[nn.Parameter] = [] if self.afe is None else self.afe.untrained_parameters()
        if "text_encoder.pooled" not in reached:
            unused += self.text_encoder.parameters_of_pooled_alone()
        return unused if "adapter" in reached else [*unused, *self.adapter.parameters()]

    def total_loss(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the terms that are on."""
        return torch.stack([self.losses.weights[name.removeprefix("l_")] * value for name, value in terms.items()]).sum()

    def compute_terms(self, batch: dict, alone: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The unweighted terms that are on, by l_NAME, and figures to watch, all scalars.

        `alone` is for looking on: one process reads the whole batch, and chance is the same whatever the seed.
        """
        step = Step(self, batch, alone=alone, seed=0 if alone else None)
        terms = {f"l_{name}": loss.of(step) for name, loss in self.loss_terms.items()}
        return terms, step.watched

    def decoder_mask(self, tokens_BS: Tensor) -> Tensor | None:
        """The positions that T5 may read, (B, S), or None for all."""
        return text_mask(tokens_BS) if self.adapter_settings.mask_padding else None

    def configure_optimizers(self):
        settings = self.optimizer_settings
        new = [*self.adapter.parameters(), *(self.afe.parameters() if self.afe is not None else ()), *self.loss_terms.parameters()]
        groups = [
            {"params": list(self.text_encoder.parameters()), "lr": settings.learning_rate},
            {"params": new, "lr": settings.learning_rate * settings.new_parts_lr_scale},
        ]
        # In one kernel; not with a gradient scaler, which could not clip then.
        fused = self.device.type in ("cpu", "cuda") and not self._scales_gradients
        optimizer = torch.optim.AdamW(
            groups, betas=settings.betas, weight_decay=settings.weight_decay, eps=settings.eps, fused=fused or None
        )
        # Lightning knows the end of the training; without a trainer there is none, and a rate that decays cannot be told.
        total = self.trainer.max_steps if settings.decay_share else 0
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: settings.rate_at(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["made_from"] = dict(self.made_from)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Lightning accepts a state with missing keys silently where loading is not strict: compare the key sets here."""
        found, wanted = set(checkpoint["state_dict"]), set(self.state_dict())
        if found != wanted:
            raise ValueError(f"the checkpoint does not fit this arm: missing {sorted(wanted - found)}, unexpected {sorted(found - wanted)}")

    @torch.no_grad()
    def refine(
        self,
        prompts: Sequence[str],
        prompt_seeds: Sequence[Sequence[int]],
        settings: RefineSettings,
        read_instead: Sequence[str] | None = None,
    ) -> list[Refinement]:
        """One refinement a prompt; row i draws its tokens from (*prompt_seeds[i], round) alone.

        `read_instead` gives E_T other texts, in every round, than the decoder continues: the control "shuffled encoder input".
        Raises ValueError unless there are as many seeds, and texts to read instead, as prompts.
        """
        if read_instead is not None and len(read_instead) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(read_instead)} texts to read instead")

        def read(texts: list[str]) -> tuple[Tensor, Tensor | None]:
            return self.read(texts if read_instead is None else read_instead)

        was_training = self.training
        self.eval()
        try:
            return write_rounds(self.backbones.decoder, prompts, prompt_seeds, settings, read)
        finally:
            self.train(was_training)

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """What D_E is told of texts: E_T's states through A (B, S, H), and the mask of what it may read (B, S), None for all."""
        tokens_BS = self.backbones.tokenize(list(texts)).to(self.device)
        return self.adapter(self.text_encoder(tokens_BS).states_BSD), self.decoder_mask(tokens_BS)

    @torch.no_grad()
    def refine_by_decoder_alone(
        self, prompts: Sequence[str], prompt_seeds: Sequence[Sequence[int]], settings: RefineSettings
    ) -> list[Refinement]:
        """The control "T5 alone": T5's encoder reads the coarse text itself; nothing that was trained takes part."""
        return write_rounds(self.backbones.decoder, prompts, prompt_seeds, settings, self.backbones.decoder.embed)


def _loss_of(term: Term, settings: LossSettings, backbones: Backbones) -> nn.Module:
    cls = term.loss_class()
    return cls.build(settings, backbones) if hasattr(cls, "build") else cls()


def _encoders_read_by(losses: LossSettings, backbones: Backbones) -> dict[str, LatentEncoder | ImageVectorEncoder]:
    """The encoders of frozen picture features that the terms read, by name; those that no term reads are not made."""
    vectors = reading_named(losses.afe.reading).reads if losses.use_afe else "pooled"
    makers = {"latents": backbones.latent_encoder, "image_vectors": lambda: backbones.image_vector_encoder(losses.afe.grid, vectors)}
    read = {name for term in losses.terms() for name in term.reads}
    return {name: make() for name, make in makers.items() if name in read}
