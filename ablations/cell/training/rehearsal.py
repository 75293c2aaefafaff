"""A rehearsal: the paper's networks at full size with random weights, to see what a training takes and that every term reaches E_T.

`profile=paper backbones.init=random` asks for it. Nothing is downloaded. run.json says `"rehearsal": true`, and no table takes it in.
Heavy imports are inside the functions: config.py reads `REHEARSAL` before arguments are checked.
"""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from datamodules.cfp import CFPDataModule
    from lightning_modules.prompt_refiner import PromptRefinerModule


def parameters_by_part(module: PromptRefinerModule) -> dict[str, dict[str, Any]]:
    """{part: {"trained": n, "frozen": n, "dtype": name}}: every network of a training, and no parameter twice."""
    backbones = module.backbones
    clip_model = backbones.clip_model
    tower = {id(parameter) for parameter in clip_model.visual.parameters()}
    parts = {
        "E_T (text encoder)": list(module.text_encoder.parameters()),
        "A (domain adapter)": list(module.adapter.parameters()),
        "N (AFE)": list(module.afe.parameters()) if module.afe is not None else [],
        "UNet": list(backbones.text_to_image.unet.parameters()),
        "VAE": list(backbones.text_to_image.vae.parameters()),
        "OpenCLIP image tower": list(clip_model.visual.parameters()),
        "OpenCLIP text tower": [parameter for parameter in clip_model.parameters() if id(parameter) not in tower],
        "T5": list(backbones.decoder.t5.parameters()),
    }
    return {
        part: {
            "trained": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            "frozen": sum(parameter.numel() for parameter in parameters if not parameter.requires_grad),
            "dtype": str(parameters[0].dtype).removeprefix("torch."),
        }
        for part, parameters in parts.items()
        if parameters
    }


def parameter_table(parts: dict[str, dict[str, Any]]) -> Table:
    """The parts as a table, in millions of parameters."""
    from rich.table import Table

    table = Table("part", "trained", "frozen", "precision", title="parameters, millions", title_justify="left")
    for part, counts in parts.items():
        shown = [f"{counts[kind] / 1e6:,.1f}" if counts[kind] else "" for kind in ("trained", "frozen")]
        table.add_row(part, *shown, counts["dtype"])
    totals = [f"{sum(counts[kind] for counts in parts.values()) / 1e6:,.1f}" for kind in ("trained", "frozen")]
    table.add_section()
    table.add_row("sum", *totals, "")
    return table


def gradient_norms(module: PromptRefinerModule, data: CFPDataModule, precision: str) -> dict[str, dict[str, float]]:
    """{term: {part: norm}}: gradients of the unweighted terms with regard to E_T, A and N on the first batch; 0 where there is none."""
    import torch

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
    import torch

    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if device.type == "cuda":
        peak["gpu"] = torch.cuda.max_memory_allocated(device) / 1e9
    return peak


def shown_memory(peak: dict[str, float]) -> str:
    return ", ".join(f"{gigabytes:.1f} GB ({where})" for where, gigabytes in peak.items())
