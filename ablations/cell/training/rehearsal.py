"""What a rehearsal shows of its training: the gradient that each term sends to each part, seconds a step, peak memory.

What a rehearsal is: see `ablations.cell.loading.rehearsal`.
"""

from __future__ import annotations

import resource
import sys

import torch

from ablations.cell.loading.load import Loaded
from ablations.cell.training.trained import Trained
from ablations.cell.work import Work
from datamodules.cfp import CFPDataModule
from lightning_modules.prompt_refiner import PromptRefinerModule


def show_gradients(work: Work, loaded: Loaded) -> None:
    """Say, and write to run.json, what each term sends to E_T, A and N at step 0."""
    norms = gradient_norms(loaded.module, loaded.data, work.config.train.precision)
    for term, parts in norms.items():
        work.console.say(f"gradient of {term}: " + ", ".join(f"{norm:.3g} at {part}" for part, norm in parts.items()))
    work.folder.record(gradient_norms=norms)


def show_costs(work: Work, loaded: Loaded, trained: Trained) -> None:
    """Say, and write to run.json, what the training took; nothing where it was taken from another arm."""
    if trained.reused:
        return
    seconds, peak = trained.seconds / trained.steps, peak_memory(loaded.backbones.text_to_image.device)
    work.console.say(f"rehearsal: {seconds:.1f} s a step, peak memory {shown_memory(peak)}")
    work.folder.record(seconds_per_step=seconds, peak_memory_gb=peak)


def gradient_norms(module: PromptRefinerModule, data: CFPDataModule, precision: str) -> dict[str, dict[str, float]]:
    """{term: {part: norm}}: gradients of the unweighted terms with regard to E_T, A and N on the first batch; 0 where there is none."""
    device = module.backbones.text_to_image.device
    module.to(device)
    batch = {name: value.to(device) if hasattr(value, "to") else value for name, value in next(iter(data.train_dataloader())).items()}
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    with torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None):
        terms, _ = module.compute_terms(batch)
    parts = {"E_T": module.text_encoder, "A": module.adapter, **({"N": module.afe} if module.afe is not None else {})}
    sizes = {part: list(network.parameters()) for part, network in parts.items()}
    norms: dict[str, dict[str, float]] = {}
    for number, (term, value) in enumerate(terms.items(), start=1):
        parameters = [parameter for listed in sizes.values() for parameter in listed]
        gradients = iter(torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=number < len(terms)))
        norms[term] = {part: _norm([next(gradients) for _ in listed]) for part, listed in sizes.items()}
    return norms


def _norm(gradients: list[torch.Tensor | None]) -> float:
    return sum(float(gradient.float().pow(2).sum()) for gradient in gradients if gradient is not None) ** 0.5


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most memory so far in GB: of the process and, on a GPU, what torch took there."""
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if device.type == "cuda":
        peak["gpu"] = torch.cuda.max_memory_allocated(device) / 1e9
    return peak


def shown_memory(peak: dict[str, float]) -> str:
    return ", ".join(f"{gigabytes:.1f} GB ({where})" for where, gigabytes in peak.items())
