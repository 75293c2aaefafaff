"""A rehearsal's networks: marked as such, with the parameters of every part.

A rehearsal is the paper's networks at full size with random weights, to see what a training takes and that every term reaches E_T.
`profile=paper backbones.init=random` asks for it. Nothing is downloaded. run.json says `"rehearsal": true`, and no table takes it in.
"""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ablations.cell.work import Work
from lightning_modules.prompt_refiner import PromptRefinerModule


def announce(work: Work, module: PromptRefinerModule) -> None:
    """Say that this is a rehearsal, and of what size, here and in run.json."""
    parts = parameters_by_part(module)
    work.record(rehearsal=True, parameters=parts)
    work.console.say("rehearsal: random weights at full size, T5's pieces made up; no score of it means anything, and no table takes it in")
    work.console.table(parameter_table(parts))


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
    table = Table("part", "trained", "frozen", "precision", title="parameters, millions", title_justify="left")
    for part, counts in parts.items():
        shown = [f"{counts[kind] / 1e6:,.1f}" if counts[kind] else "" for kind in ("trained", "frozen")]
        table.add_row(part, *shown, counts["dtype"])
    totals = [f"{sum(counts[kind] for counts in parts.values()) / 1e6:,.1f}" for kind in ("trained", "frozen")]
    table.add_section()
    table.add_row("sum", *totals, "")
    return table
