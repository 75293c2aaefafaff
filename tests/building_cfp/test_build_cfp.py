"""Claims about building CFP: resumable, shardable, the same bytes however it was interrupted, and readable by the data module."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ablations import build_cfp
from ablations.building_cfp.ledger import Ledger, Shard, read_entries
from ablations.runtime.errors import UserError

PROMPTS = [
    "a cat in the snow at noon, oil painting, sharp focus",
    "a red boat in a harbour at sunset, watercolour, highly detailed",
    "a castle on a hill at night, pixel art",
    "a robot in the rain, neon light, comic",
    "a green tree in the fog, ink drawing, soft light",
    "a lonely book, cinematic lighting, sharp focus, beautiful",
    "an owl on a beach",
    "a cat",
]
WORDS = sorted({word for prompt in PROMPTS for word in prompt.replace(",", " ,").split()})


def word_tokenizer(folder: Path) -> int:
    """A tokenizer of whole words, saved as transformers does; the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 40}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory):
    """A summariser and a classifier of the real architectures, small and random."""
    from transformers import BartConfig, BartForConditionalGeneration, RobertaConfig, RobertaForSequenceClassification

    folder = tmp_path_factory.mktemp("models")
    size = word_tokenizer(folder / "bart")
    word_tokenizer(folder / "classifier")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        bart = BartConfig(
            vocab_size=size, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=48, init_std=1.0, **sizes,
            task_specific_params={"summarization": {"num_beams": 3, "max_length": 30, "min_length": 20}},
        )  # fmt: skip
        BartForConditionalGeneration(bart).save_pretrained(folder / "bart")
        classifier = RobertaConfig(
            vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=64,
            id2label={0: "SFW", 1: "NSFW"}, label2id={"SFW": 0, "NSFW": 1}, initializer_range=1.0,
        )  # fmt: skip
        RobertaForSequenceClassification(classifier).save_pretrained(folder / "classifier")
    return folder


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join([*PROMPTS[:3], "  ", *PROMPTS[3:]]) + "\n")  # the fourth line holds no words
    return path


def options(models_folder: Path, to: Path) -> list[str]:
    models = ["--summarizer", str(models_folder / "bart"), "--classifier", str(models_folder / "classifier")]
    speed = ["--profile", "tiny", "--steps", "2", "--batch-size", "3", "--text-batch-size", "3", "--threads", "1", "--device", "cpu"]
    return ["--to", str(to), *models, *speed, "--progress", "plain"]


@pytest.fixture(scope="session")
def built(tmp_path_factory, models_folder):
    """A whole build in one process, undisturbed."""
    folder = tmp_path_factory.mktemp("built")
    path = folder / "prompts.txt"
    path.write_text("\n".join([*PROMPTS[:3], "  ", *PROMPTS[3:]]) + "\n")
    assert build_cfp.main(["--prompts", str(path), *options(models_folder, folder / "cfp")]) == 0
    return folder / "cfp"


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def contents(folder: Path) -> dict[str, bytes]:
    """What a build gives, without the ledgers, whose number depends on the shards."""
    return {name: content for name, content in files(folder).items() if not name.startswith("stages/")}


def rows_of(folder: Path) -> list[dict]:
    with open(folder / "cfp.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_has_the_authors_columns_and_ours(built):
    rows = rows_of(built)
    assert ",".join(rows[0]) == (
        "prompt,step,seed,height,width,cfg,sampler,image_name,image_path,coarse-grained prompt,fine-grained prompt,nsfw_label,nsfw_score"
    )
    assert [row["prompt"] for row in rows] == PROMPTS == [row["fine-grained prompt"] for row in rows]
    settings = ("step", "height", "width", "cfg", "sampler")
    assert {tuple(row[name] for name in settings) for row in rows} == {("2", "64", "64", "7.5", "Euler a")}
    assert [row["image_name"] for row in rows] == [f"{i:06d}.png" for i in (0, 1, 2, 4, 5, 6, 7, 8)]
    for row in rows:
        with Image.open(built / row["image_path"]) as picture:
            assert picture.size == (64, 64)
        assert len(json.loads(row["coarse-grained prompt"])) == 3
        assert row["nsfw_label"] in ("SFW", "NSFW") and 0.5 <= float(row["nsfw_score"]) <= 1


def test_seeds_are_functions_of_seed_and_prompt_id(built):
    from ablations.building_cfp.drawing import fine_image_seed

    assert [int(row["seed"]) for row in rows_of(built)] == [fine_image_seed(0, i) for i in (0, 1, 2, 4, 5, 6, 7, 8)]
    assert fine_image_seed(0, 7) == 9118742261320140259
    seeds = {fine_image_seed(seed, number) for seed in range(10) for number in range(100)}
    assert len(seeds) == 1000 and max(seeds) < 2**63


def test_the_manifest_says_how_it_was_made_and_what_was_left_out(built):
    manifest = json.loads((built / "manifest.json").read_text())
    assert (manifest["rows"], manifest["left_out"], manifest["reasons"]) == (8, 1, {"empty_prompt": 1})
    assert [(bad["id"], bad["line"], bad["reason"]) for bad in manifest["bad"]] == [(3, 4, "empty_prompt")]
    assert sum(manifest["nsfw_labels"].values()) == 8
    stages = manifest["stages"]
    assert (stages["images"]["steps"], stages["images"]["guidance_scale"], stages["images"]["seed"]) == (2, 7.5, 0)
    assert stages["coarse"]["lengths"] == [[5, 1], [10, 6], [15, 11]] and stages["coarse"]["num_beams"] == 3
    assert all(len(stages[stage]["weights"]) == 16 for stage in ("images", "coarse", "nsfw"))


def test_the_data_module_reads_the_table(built, small_backbones, tmp_path):
    from datamodules.cfp import CFPDataModule
    from datamodules.settings import DataSettings

    settings = DataSettings(built / "cfp.csv", image_size=64, batch_size=4, cache_dir=tmp_path, num_validation=2, clean_captions=False)
    data = CFPDataModule(settings, 0, small_backbones, [small_backbones.latent_encoder()], lambda line: None)
    batch = next(iter(data.train_dataloader()))
    assert (data.manifest.layout, data.manifest.total, data.manifest.bad) == ("coarse-fine table", 8, ())
    assert batch["latent_mean_BCHW"].shape[0] == 4 and all(len(record.coarse_prompts) == 3 for record in data.records)


def test_coarse_prompts_keep_to_their_lengths_and_do_not_depend_on_the_batch(built, models_folder):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models_folder / "bart")
    model = AutoModelForSeq2SeqLM.from_pretrained(models_folder / "bart").eval()
    for row in rows_of(built)[::3]:
        for (longest, shortest), entry in zip(((5, 1), (10, 6), (15, 11)), json.loads(row["coarse-grained prompt"]), strict=True):
            inputs = tokenizer(row["prompt"], return_tensors="pt")
            alone = model.generate(**inputs, max_length=longest, min_length=shortest, num_beams=3, do_sample=False)
            assert shortest <= alone.shape[1] <= longest
            assert entry["prompt"] == tokenizer.decode(alone[0], skip_special_tokens=True).strip() != ""


def test_labels_are_those_of_transformers_own_pipeline(built, models_folder):
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(models_folder / "classifier"), device="cpu")
    for row, expected in zip(rows_of(built), classify(PROMPTS), strict=True):
        assert row["nsfw_label"] == expected["label"]
        assert float(row["nsfw_score"]) == pytest.approx(expected["score"], abs=1e-5)


def test_a_second_run_makes_nothing_and_changes_nothing(built, models_folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*.png")}
    content = files(built)
    assert build_cfp.main(options(models_folder, built)) == 0
    out = capsys.readouterr().out
    assert all(f"stage {stage}: all 8 prompts are done" in out for stage in ("images", "coarse", "nsfw"))
    assert content == files(built) and before == {path: path.stat().st_mtime_ns for path in built.rglob("*.png")}


KILL = """
import os, signal, sys
from PIL import Image
save, saved = Image.Image.save, []
def save_and_die(self, file, *rest, **options):
    saved.append(file)
    if len(saved) == 5:
        with open(file, "wb") as half:
            half.write(b"half a picture")
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, file, *rest, **options)
Image.Image.save = save_and_die
from ablations.build_cfp import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_build_that_was_killed_ends_as_an_undisturbed_one(built, models_folder, prompts_file, tmp_path):
    arguments = ["--prompts", str(prompts_file), *options(models_folder, tmp_path / "cfp")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", *sys.path])}
    killed = subprocess.run([sys.executable, "-c", KILL, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ledger = tmp_path / "cfp" / "stages" / "images-0-of-1.jsonl"
    assert len(ledger.read_bytes().splitlines()) == 3  # of five images that were drawn, three were in a finished batch
    with open(ledger, "ab") as file:
        file.write(b'{"id": 4, "seed": 17')  # as a kill in the midst of a write leaves it
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "cfp").rglob("[0-9]*.png")}
    assert len(list((tmp_path / "cfp").rglob(".partial-*"))) == 1
    assert build_cfp.main(arguments) == 0
    assert files(tmp_path / "cfp") == files(built)
    first_batch = {entry["image"] for entry in list(read_entries(ledger.parent, "images").values())[:3]}
    assert all((tmp_path / "cfp" / name).stat().st_mtime_ns == done[tmp_path / "cfp" / name] for name in first_batch)


def test_shards_share_a_folder_and_give_the_rows_of_one_process(built, models_folder, prompts_file, tmp_path, capsys):
    arguments = [*options(models_folder, tmp_path / "cfp")]
    assert build_cfp.main(["--prompts", str(prompts_file), "--shard", "1/2", *arguments]) == 0
    assert not (tmp_path / "cfp" / "cfp.csv").exists()
    capsys.readouterr()
    assert build_cfp.main(["table", *arguments]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "stage images is not complete: shard 0/2 lacks 5 of 5 prompts, the first is 0; run python -m ablations.build_cfp images" in error
    assert "--shard 0/2" in error
    assert build_cfp.main(["--shard", "0/2", *arguments]) == 0
    assert build_cfp.main(["table", *arguments]) == 0
    one, two = rows_of(built), rows_of(tmp_path / "cfp")
    assert [row["seed"] for row in one] == [row["seed"] for row in two]
    assert [row["coarse-grained prompt"] for row in one] == [row["coarse-grained prompt"] for row in two]
    for row in one:  # a batch of other prompts rounds otherwise
        pictures = [np.asarray(Image.open(folder / row["image_path"]), dtype=int) for folder in (built, tmp_path / "cfp")]
        assert np.abs(pictures[0] - pictures[1]).max() <= 2


def test_shards_may_be_cut_anew_and_make_only_what_is_left(models_folder, prompts_file, tmp_path, capsys):
    arguments = ["nsfw", *options(models_folder, tmp_path / "cfp")]
    assert build_cfp.main([*arguments, "--prompts", str(prompts_file), "--shard", "0/4"]) == 0  # prompts 0, 4 and 8
    assert build_cfp.main(arguments) == 0
    assert "5 labels to make, 3 done before" in capsys.readouterr().out
    stages = tmp_path / "cfp" / "stages"
    lines = [json.loads(line)["id"] for path in stages.glob("nsfw-*.jsonl") for line in path.read_text().splitlines()]
    assert sorted(lines) == [0, 1, 2, 4, 5, 6, 7, 8]


def test_a_lost_image_is_named_and_made_again_the_same(built, models_folder, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    lost = copy / "images" / "000" / "000005.png"
    content = lost.read_bytes()
    lost.write_bytes(content[:100])
    assert build_cfp.main(["table", *options(models_folder, copy)]) == 2
    assert "1 images are gone or torn, the first is" in capsys.readouterr().err
    assert build_cfp.main(["images", "table", *options(models_folder, copy)]) == 0
    assert lost.read_bytes() == content and contents(copy) == contents(built)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--seed", "3"], "was begun with seed=0, not 3"),
        (["--steps", "9"], "was begun with steps=2, not 9"),
        (["--guidance", "7"], "was begun with guidance_scale=7.5, not 7.0"),
    ],
)
def test_other_settings_in_one_folder_are_refused_before_a_model_is_loaded(built, models_folder, changed, said, capsys, monkeypatch):
    monkeypatch.setattr("ablations.building_cfp.drawing.load_tiny", lambda device: pytest.fail("loaded"))
    assert build_cfp.main(["images", *options(models_folder, built), *changed]) == 2
    assert said in capsys.readouterr().err


def test_other_prompts_in_one_folder_are_refused_and_more_of_them_are_taken(models_folder, prompts_file, tmp_path, capsys):
    arguments = ["nsfw", *options(models_folder, tmp_path / "cfp")]
    assert build_cfp.main([*arguments, "--prompts", str(prompts_file), "--limit", "2"]) == 0
    assert build_cfp.main([*arguments, "--prompts", str(prompts_file)]) == 0
    assert len(read_entries(tmp_path / "cfp" / "stages", "nsfw")) == 8
    prompts_file.write_text("another prompt\n")
    capsys.readouterr()
    assert build_cfp.main([*arguments, "--prompts", str(prompts_file)]) == 2
    assert "was begun with other prompts" in capsys.readouterr().err


def test_a_disk_without_room_is_one_line_before_anything_is_drawn(models_folder, prompts_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert build_cfp.main(["images", "--prompts", str(prompts_file), *options(models_folder, tmp_path / "cfp")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "the images need about 63.9 kB and the disk of" in error
    assert not (tmp_path / "cfp" / "images").exists()


def test_a_blank_image_and_an_empty_summary_are_left_out_with_their_reason(built, models_folder, tmp_path, monkeypatch):
    from ablations.building_cfp.drawing import ImagesStage
    from ablations.building_cfp.texts import CoarseStage

    whole, path = ImagesStage._draw, tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS[:4]))

    def draw(self, texts, seeds):
        images = whole(self, texts, seeds)
        for image, text in zip(images, texts, strict=True):
            if text == PROMPTS[1]:
                image[:] = 0
        return images

    monkeypatch.setattr(ImagesStage, "_draw", draw)
    entry = CoarseStage._entry
    monkeypatch.setattr(
        CoarseStage, "_entry", staticmethod(lambda number, texts: entry(number, ["", *texts[1:]] if number == 2 else texts))
    )
    assert build_cfp.main(["--prompts", str(path), *options(models_folder, tmp_path / "cfp")]) == 0
    manifest = json.loads((tmp_path / "cfp" / "manifest.json").read_text())
    assert [(bad["id"], bad["reason"]) for bad in manifest["bad"]] == [(1, "blank_image"), (2, "empty_summary")]
    assert [row["prompt"] for row in rows_of(tmp_path / "cfp")] == [PROMPTS[0], PROMPTS[3]]


def test_a_shard_that_another_process_runs_is_refused(tmp_path):
    with Ledger(tmp_path / "stages", "images", Shard(1, 4)):
        with pytest.raises(UserError, match=r"shard 1/4 of stage images in .* is being run by another process"):
            Ledger(tmp_path / "stages", "images", Shard(1, 4)).__enter__()
        with Ledger(tmp_path / "stages", "images", Shard(2, 4)):
            pass


@pytest.mark.parametrize("tail", [b"", b'{"id": 2', b'{"id": 2}', b"\xff\xfe"])
def test_a_torn_last_line_is_no_line(tmp_path, tail):
    with Ledger(tmp_path, "nsfw", Shard()) as ledger:
        ledger.append([{"id": 0, "label": "\u2028 é"}, {"id": 1}])
    path = tmp_path / "nsfw-0-of-1.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert list(read_entries(tmp_path, "nsfw")) == [0, 1]
    with Ledger(tmp_path, "nsfw", Shard()) as ledger:
        ledger.append([{"id": 2}])
    assert path.read_bytes() == whole + b'{"id": 2}\n'
