"""The stages that read texts: `coarse`, three summaries of each fine prompt, and `nsfw`, a label and its score."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ablations.building_cfp.folder import BuildFolder
from ablations.building_cfp.models import TextModel, load_classifier, load_summarizer
from ablations.building_cfp.prompts import Prompt
from ablations.building_cfp.stages import Stage

# (max_length, min_length) of the three coarse prompts, in the summariser's tokens with start and end, as the authors set them.
COARSE_LENGTHS = ((5, 1), (10, 6), (15, 11))
# What a summariser's own settings say of length is replaced by the above.
_NOT_TAKEN_OVER = ("max_length", "min_length", "prefix")


class _TextStage(Stage):
    """A stage that reads `batch_size` prompts at a time, in the order of their ids."""

    def __init__(self, folder: BuildFolder, model: str, batch_size: int, device: torch.device):
        super().__init__(folder)
        self._name, self._batch_size, self._device = model, batch_size, device
        self._loaded: TextModel | None = None

    @property
    def model(self) -> TextModel:
        assert self._loaded is not None, "load() comes first"
        return self._loaded

    def bytes_each(self) -> float:
        return 300.0

    def groups(self, prompts: Sequence[Prompt]) -> list[list[Prompt]]:
        return [list(prompts[i : i + self._batch_size]) for i in range(0, len(prompts), self._batch_size)]


class CoarseStage(_TextStage):
    """Writes the three coarse prompts by a summariser: beam search, as the summariser's own settings have it."""

    name, unit = "coarse", "sets of coarse prompts"

    def asked(self) -> dict[str, object]:
        return {"lengths": [list(pair) for pair in COARSE_LENGTHS]}

    def load(self) -> dict[str, object]:
        self._loaded = load_summarizer(self._name, self._device)
        config = self.model.model.config
        # What transformers' summarization pipeline took from a model's config, up to version 4, which had one.
        own = (getattr(config, "task_specific_params", None) or {}).get("summarization", {})
        self._generation = {name: value for name, value in own.items() if name not in _NOT_TAKEN_OVER}
        self._prefix = own.get("prefix", getattr(config, "prefix", None)) or ""
        beams = self._generation.get("num_beams", self.model.model.generation_config.num_beams)
        return {**self.asked(), **self.model.record(), "num_beams": beams or 1}

    @torch.no_grad()
    def make(self, group: Sequence[Prompt], wanted: set[int]) -> list[dict]:
        inputs = self.model.tokenize([self._prefix + prompt.text for prompt in group])
        written = []
        for longest, shortest in COARSE_LENGTHS:
            ids = self.model.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_length=longest,
                min_length=shortest,
                do_sample=False,
                **self._generation,
            )
            written.append([text.strip() for text in self.model.tokenizer.batch_decode(ids, skip_special_tokens=True)])
        return [self._entry(prompt.id, texts) for prompt, *texts in zip(group, *written, strict=True) if prompt.id in wanted]

    @staticmethod
    def _entry(prompt_id: int, texts: list[str]) -> dict:
        empty = next((pair for pair, text in zip(COARSE_LENGTHS, texts, strict=True) if not text), None)
        if empty is not None:
            detail = f"the summariser wrote no words for (max_length, min_length) = {empty}"
            return {"id": prompt_id, "bad": "empty_summary", "detail": detail}
        return {"id": prompt_id, "coarse": texts}


class NsfwStage(_TextStage):
    """Labels the fine prompts by a text classifier: the likeliest label and its probability. No prompt is dropped for it."""

    name, unit = "nsfw", "labels"

    def asked(self) -> dict[str, object]:
        return {}

    def load(self) -> dict[str, object]:
        self._loaded = load_classifier(self._name, self._device)
        return self.model.record()

    @torch.no_grad()
    def make(self, group: Sequence[Prompt], wanted: set[int]) -> list[dict]:
        logits_BL = self.model.model(**self.model.tokenize([prompt.text for prompt in group])).logits.float()
        # A classifier with one output gives a probability by itself, of the label that it knows.
        probabilities_BL = logits_BL.sigmoid() if logits_BL.shape[1] == 1 else logits_BL.softmax(dim=1)
        scores, labels = probabilities_BL.max(dim=1)
        names = self.model.model.config.id2label
        return [
            {"id": prompt.id, "label": names[int(label)], "score": round(float(score), 6)}
            for prompt, label, score in zip(group, labels, scores, strict=True)
            if prompt.id in wanted
        ]
