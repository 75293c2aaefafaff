"""The saved workspace of the docs: what it asks W&B to show, and that W&B's client sends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ablations.cell.cell import CELL

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
TOOLS = os.environ.get("UF_FGTG_TEST_TOOLS", "")


@pytest.mark.slow
@pytest.mark.skipif(not (Path(TOOLS) / "fake_wandb.py").is_file(), reason="no stand-in W&B server (UF_FGTG_TEST_TOOLS)")
def test_the_review_workspace_is_sent_with_grids_by_step_and_arm(tmp_path, monkeypatch):
    """In a process of its own, as it is typed. The stand-in knows no views: the answer to this one is given here."""
    monkeypatch.syspath_prepend(TOOLS)
    sys.modules.pop("fake_wandb", None)
    import fake_wandb

    views: list[dict] = []

    def upsert_view(self, variables: dict) -> dict:
        views.append(variables)
        return {"upsertView": {"view": {"id": "v1", "name": "review"}, "inserted": True}}

    (answers,) = (kind for kind in vars(fake_wandb).values() if isinstance(kind, type) and hasattr(kind, "UpsertBucket"))
    monkeypatch.setattr(answers, "UpsertView2", upsert_view, raising=False)
    server, url = fake_wandb.serve(tmp_path / "server")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40, "HOME": str(tmp_path), "WANDB_CONFIG_DIR": str(tmp_path)}
    try:
        command = [sys.executable, str(EXAMPLES / "review_workspace.py"), "me", "ablations"]
        result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    finally:
        server.shutdown()
        server.server_close()
    assert result.returncode == 0, result.stderr
    (view,) = views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "ablations", "Review of arms")
    spec = json.loads(view["spec"])["section"]
    sections = {section["name"]: section for section in spec["panelBankConfig"]["sections"]}
    grid = sections["Diversity grids"]["panels"][0]["config"]
    assert (grid["mediaKeys"], grid["gridSettings"]) == (["diversity_grid"], {"xAxis": "step", "yAxis": "run"})
    assert sections["Scores"]["panels"][0]["config"]["groupBy"] == "group"
    assert [entry["name"] for entry in spec["runSets"][0]["grouping"]] == ["group"]
    assert f'"value": "{CELL}"' in json.dumps(spec["runSets"][0]["filters"])
