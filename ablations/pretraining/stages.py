"""The stages of the tiny networks' pre-training, in order."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from ablations.runtime.command_line import announce_libraries
from ablations.runtime.errors import UserError
from ablations.runtime.files import write_json
from lightning_modules.backbones.whole_files import DIGESTS, note_digests

if TYPE_CHECKING:
    import torch

    from ablations.pretraining.data import Corpus

STAGES = ("vocabularies", "vae", "open_clip", "t5", "oracle", "unet", "evaluate", "judge", "pairing")
DEFAULT_STEPS = {"vae_narrow": 2100, "vae": 3200, "open_clip": 900, "t5": 11_500, "oracle": 1000, "unet": 2400, "judge": 450}
NUM_PICTURES = 80_000
# Of the judge, whose 450 steps of 128 see each once or twice.
NUM_JUDGE_PICTURES = 40_000


def pretrain(arguments: argparse.Namespace) -> None:
    """Run the stages asked for, in order.

    `arguments`: stages, work, to, steps by stage, pictures, fine, seed and threads, as the command has them. Raises UserError for a state
    of another training or a file that is missing, and FloatingPointError for a loss that is not finite.
    """
    announce_libraries()
    import torch

    try:
        pretraining = Pretraining(arguments)
        for stage in arguments.stages:
            if stage != "vocabularies":
                print(f"stage {stage}", flush=True)
                torch.manual_seed(arguments.seed)
                getattr(pretraining, stage)()
    except (FileNotFoundError, ValueError) as error:
        raise UserError(error) from error


class Pretraining:
    """The stages over one work folder; each method is one stage."""

    def __init__(self, arguments: argparse.Namespace):
        import torch

        from ablations.pretraining.data import build_corpus
        from ablations.pretraining.loop import Bench
        from lightning_modules.backbones.tiny import TINY, build_tiny_networks

        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        self.steps = arguments.steps
        self.target = arguments.to or TINY
        self.embedded = self.target.resolve() == TINY.resolve()
        if not self.embedded:
            # A folder elsewhere is made complete, so that the embedded one stays as it is.
            for source in (*(TINY / "configs").iterdir(), TINY / "clip_merges.txt.gz", TINY / "t5_tokenizer.json"):
                copy = self.target / source.relative_to(TINY)
                copy.parent.mkdir(parents=True, exist_ok=True)
                if not copy.exists():
                    shutil.copy(source, copy)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pictures, self.fine = arguments.pictures, arguments.fine
        # The judge has a corpus of its own, and measuring the pairing needs none.
        if set(arguments.stages) - {"judge", "pairing"}:
            self.corpus = build_corpus(arguments.work, arguments.pictures, arguments.seed, fine=arguments.fine)
            self.bench = Bench(self.corpus, arguments.work, self.device, arguments.seed)
        self.work, self.seed = arguments.work, arguments.seed
        torch.manual_seed(arguments.seed)
        if "vocabularies" in arguments.stages:
            self.vocabularies()
        self.networks, self.tokenize, self.t5_tokenizer, self.scheduler = build_tiny_networks(self.target)

    def vocabularies(self) -> None:
        from ablations.pretraining.vocabularies import build_t5_vocabulary, train_clip_merges

        texts = [caption.text for caption in self.corpus.captions[:20_000]]
        sizes = {
            "clip": train_clip_merges(texts, self.target / "clip_merges.txt.gz"),
            "t5": build_t5_vocabulary(texts, self.target / "t5_tokenizer.json"),
        }
        self.record("vocabularies", {}, sizes)

    def vae(self) -> None:
        """First with 8 latent channels on every picture, then widened to 16 with most batches sharp."""
        from diffusers import AutoencoderKL

        from ablations.pretraining.loop import Schedule
        from ablations.pretraining.vae import train_vae, vae_quality, widen

        vae = self.networks["vae"]
        narrow = AutoencoderKL.from_config({**vae.config, "latent_channels": 8})
        schedule = Schedule(self.steps["vae_narrow"], 2e-3, 200, ema_decay=0.995)
        bench = replace(self.bench, directory=self.bench.directory / "vae_narrow")
        first = train_vae(narrow, schedule, bench, batch=32, crisp_share=0.0)
        widen(vae, narrow.cpu().state_dict())
        schedule = Schedule(self.steps["vae"], 1.2e-3, 60, ema_decay=0.995)
        summary = train_vae(vae, schedule, replace(self.bench, directory=self.bench.directory / "vae", seed=self.bench.seed + 1))
        self.finish("vae", summary | {"narrow": first}, vae_quality(vae, self.device))

    def open_clip(self) -> None:
        from ablations.pretraining.clip import clip_quality, train_clip
        from ablations.pretraining.loop import Schedule

        model = self.networks["open_clip"]
        with _quick_attention(self.device):
            summary = train_clip(model, self.tokenize, Schedule(self.steps["open_clip"], 1e-3, 200), self.bench)
        self.finish("open_clip", summary, clip_quality(model, self.tokenize, self.device))

    def judge(self) -> None:
        """An OpenCLIP for scores alone, from another seed, on captions and pictures of its own, which pair words at random."""
        import torch
        from open_clip.model import CLIP

        from ablations.metrics.judge import WEIGHTS
        from ablations.pretraining.clip import clip_quality, train_clip
        from ablations.pretraining.data import NEUTRAL, build_corpus
        from ablations.pretraining.loop import Bench, Schedule, save_network
        from lightning_modules.backbones.tiny import clip_config

        seed, work = self.seed + 1, self.work / "judge"
        corpus = build_corpus(work, min(self.pictures, NUM_JUDGE_PICTURES), seed, fine=NEUTRAL)
        torch.manual_seed(seed)
        model = CLIP(**clip_config(self.tokenize, self.target))
        with _quick_attention(self.device):
            schedule = Schedule(self.steps["judge"], 1e-3, 200, save_every=100)
            summary = train_clip(model, self.tokenize, schedule, Bench(corpus, work, self.device, seed), "judge")
        quality = clip_quality(model, self.tokenize, self.device)
        path = WEIGHTS if self.embedded else self.target / WEIGHTS.name
        save_network(model.cpu(), path)
        note_digests(path.parent, [path.name])
        drawn = {"pictures": len(corpus), "seed": seed, "fine_prompts": corpus.fine, "captions_sha256": _captions_digest(corpus)}
        self.record("judge", summary | {"corpus": drawn}, quality)

    def pairing(self) -> None:
        """How much of a world's pairing of scenes with styles the networks carry."""
        from ablations.pretraining.pairing import clip_pairing, t5_pairing
        from lightning_modules.backbones.tiny import load_tiny_backbones

        backbones = load_tiny_backbones(self.target).to(self.device)
        self.record("pairing", {}, t5_pairing(backbones.decoder) | clip_pairing(backbones))

    def t5(self) -> None:
        from ablations.pretraining.loop import Schedule
        from ablations.pretraining.t5 import t5_quality, train_t5

        model = self.networks["t5"]
        summary = train_t5(model, self.t5_tokenizer, Schedule(self.steps["t5"], 2e-3, 200, log_every=100), self.bench)
        self.finish("t5", summary, t5_quality(model, self.t5_tokenizer, self.device))

    def oracle(self) -> None:
        from ablations.metrics.word_oracle import WEIGHTS, WordOracle
        from ablations.pretraining.loop import Schedule, save_network
        from ablations.pretraining.oracle import oracle_quality, train_oracle

        self.load("vae")
        oracle = WordOracle()
        summary = train_oracle(oracle, Schedule(self.steps["oracle"], 2e-3, 100), self.bench)
        quality = oracle_quality(oracle, self.networks["vae"], self.device)
        path = WEIGHTS if self.embedded else self.target / WEIGHTS.name
        save_network(oracle.cpu(), path)
        note_digests(path.parent, [path.name])
        self.record("oracle", summary, quality)

    def unet(self) -> None:
        from ablations.pretraining.diffusion import encode_corpus, train_unet
        from ablations.pretraining.loop import Schedule

        vae, unet = self.load("vae"), self.networks["unet"]
        mean, _ = encode_corpus(vae, self.bench)
        vae.register_to_config(scaling_factor=round(1 / mean.float().std().item(), 4))
        self.write_scaling_factor(vae.config.scaling_factor)
        schedule = Schedule(self.steps["unet"], 8e-4, 300, decay_share=0.35, ema_decay=0.999)
        summary = train_unet(unet, vae, self.scheduler, self.load("open_clip"), self.tokenize, schedule, self.bench)
        self.finish("unet", summary, {})

    def evaluate(self) -> None:
        """The diffusion model's held-out quality, on the weights as they are shipped (half precision)."""
        from ablations.pretraining.evaluation import diffusion_quality
        from lightning_modules.backbones.tiny import load_tiny_backbones

        self.record("diffusion", {}, diffusion_quality(load_tiny_backbones(self.target).to(self.device), self.bench.directory))

    def load(self, part: str):
        """A network with the weights that its stage left."""
        from lightning_modules.backbones.tiny import load_weights

        network = self.networks[part]
        load_weights(network, self.target / f"{part}.safetensors")
        return network.to(self.device).eval()

    def finish(self, part: str, summary: dict, quality: dict) -> None:
        """Write a stage's weights in half precision and record how it went."""
        from ablations.pretraining.loop import save_network

        save_network(self.networks[part].cpu(), self.target / f"{part}.safetensors")
        self.record(part, summary, quality)

    def record(self, stage: str, summary: dict, quality: dict) -> None:
        """Add a stage to provenance.json and print its quality."""
        path = self.target / "provenance.json"
        provenance = json.loads(path.read_text()) if path.exists() else {"made_by": "python -m ablations.pretrain_tiny", "stages": {}}
        if hasattr(self, "corpus") and stage not in ("judge", "pairing"):
            provenance["corpus"] = {
                "pictures": len(self.corpus),
                "seed": self.seed,
                "fine_prompts": self.corpus.fine,
                "captions_sha256": _captions_digest(self.corpus),
            }
        provenance["stages"][stage] = {
            "training": summary,
            "quality": {k: round(v, 5) if isinstance(v, float) and math.isfinite(v) else v for k, v in quality.items()},
        }
        write_json(path, provenance)
        self.note_digests()
        print(f"{stage}: {json.dumps(provenance['stages'][stage]['quality'])}", flush=True)

    def write_scaling_factor(self, factor: float) -> None:
        """The VAE's scaling factor belongs to its architecture file, as in every diffusers VAE."""
        path = self.target / "configs" / "vae.json"
        config = json.loads(path.read_text())
        config["scaling_factor"] = factor
        path.write_text(json.dumps(config, indent=2) + "\n")
        self.note_digests()

    def note_digests(self) -> None:
        """Of all that is there by now: whoever loads the folder compares them."""
        files = [path for path in self.target.rglob("*") if path.is_file() and path.name not in ("provenance.json", DIGESTS)]
        note_digests(self.target, [path.relative_to(self.target).as_posix() for path in files])


def _captions_digest(corpus: Corpus) -> str:
    return hashlib.sha256("\n".join(caption.text for caption in corpus.captions).encode()).hexdigest()


def _quick_attention(device: torch.device) -> AbstractContextManager:
    """On a CPU the fused attention's backward pass is the slowest part of OpenCLIP's step at these sizes."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if device.type == "cpu":
        return sdpa_kernel([SDPBackend.MATH])
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
