"""Saves a workspace in W&B for reviewing arms: diversity grids by step and arm, what was scored, how training went.

uv run --with "wandb-workspaces>=0.4.13,<0.5" python docs/examples/review_workspace.py ENTITY PROJECT
"""

from __future__ import annotations

import sys

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

SCORES = ("refined/fidelity", "refined/clip_score", "diversity/refined/st_lpips", "diversity/refined/vendi")
CURVES = ("val/loss", "train/loss", "train/gradient_norm", "train/records_per_second")


def workspace(entity: str, project: str) -> ws.Workspace:
    """The workspace, not saved yet: cells alone, grouped by arm; a grid of every arm at every step at which one was logged."""
    grids = wr.MediaBrowser(title="by step and arm", media_keys=["diversity_grid"], mode="grid", grid_x_axis="step", grid_y_axis="run")
    candidates = wr.MediaBrowser(title="candidates", media_keys=["candidates"], mode="gallery", gallery_axis="run")
    scores = [wr.BarPlot(title=name, metrics=[name], groupby="Group", groupby_aggfunc="mean") for name in SCORES]
    curves = [wr.LinePlot(title=name, x="Step", y=[name], groupby="Group") for name in CURVES]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Review of arms",
        sections=[
            ws.Section(name="Diversity grids", panels=[grids, candidates], is_open=True, pinned=True),
            ws.Section(name="Scores", panels=scores, is_open=True),
            ws.Section(name="Training", panels=curves),
        ],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("JobType") == "cell"], groupby=[ws.Metric("Group")], pinned_columns=[f"summary:{name}" for name in SCORES]
        ),
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: python {sys.argv[0]} ENTITY PROJECT")
    print(workspace(*sys.argv[1:]).save().url)
