"""The third stage: every evaluation prompt is refined, and every picture planned that is to be drawn and scored.

Conditions: `coarse` and `fine` (the prompts as they are), `refined` (the arm's own way of refining), `refined_shared_noise`
(its candidates drawn from one image noise, so that what differs comes from the text), `rewrite` (strategy 2 beside
strategy 1) and the controls, which should not help: `control_step0` (the refiner before its first step),
`control_t5_direct` (T5 reads the coarse text itself), `control_shuffled` (E_T reads another prompt than the user's).

`plug_in` is the encoder's other use: the coarse prompt drawn with the trained E_T in place of Stable Diffusion's own text
encoder, outright as in the paper, so that the empty prompt of guidance is read by the trained one too. Every other picture is
drawn with the original encoder. At step 0 the two are the same: the control of `plug_in` is `coarse` itself.

All draws are keyed: candidate c of prompt p samples its tokens from f(seed, p, c) and its picture from the image noise
f(seed, p, c), which is the same for every condition. So conditions, and arms at one seed, are paired picture by picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ablations.cell.refining.keys import image_seed, prompt_seed
from ablations.cell.work import Work
from ablations.config import EvalConfig
from ablations.results.prompts_and_scores import PLUG_IN, Drawing
from datamodules.records import EvalPrompt
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import Refinement, RefineSettings

CONTROLS = ("control_step0", "control_t5_direct", "control_shuffled")


def refine_settings(prompt_len: int, config: EvalConfig, mode: str | None = None) -> RefineSettings:
    """How the arm refines, or how it would in another mode."""
    return RefineSettings(
        prompt_len=prompt_len,
        mode=mode or config.mode,
        extend_by=config.extend_by,
        rounds=config.rounds,
        max_new_tokens=config.max_new_tokens,
        top_p=config.top_p,
        top_k=config.top_k,
    )


def shuffled_prompts(coarse: Sequence[str]) -> list[str] | None:
    """For each prompt the next one, cyclically, that is another text; None where all prompts are the same."""
    if len(set(coarse)) < 2:
        return None
    twice = [*coarse, *coarse]
    return [next(other for other in twice[i + 1 :] if other != text) for i, text in enumerate(coarse)]


def plan_drawings(
    module: PromptRefinerModule,
    untrained: Callable[[], PromptRefinerModule],
    prompts: Sequence[EvalPrompt],
    prompt_len: int,
    config: EvalConfig,
    seed: int,
) -> list[Drawing]:
    """Refine every prompt under every condition. `untrained` gives the same refiner at step 0 (called only for controls)."""
    coarse = [prompt.coarse_prompt for prompt in prompts]
    settings = refine_settings(prompt_len, config)
    if config.controls:
        step0 = untrained()
        shuffled = shuffled_prompts(coarse)
    drawings: list[Drawing] = []
    for candidate in range(config.num_candidates):
        keys = [prompt_seed(seed, prompt.prompt_id, candidate) for prompt in prompts]
        seeds = [(key,) for key in keys]
        refined = module.refine(coarse, seeds, settings)
        written: dict[str, list[Refinement]] = {
            "coarse": [Refinement(text, 0, False) for text in coarse],
            "fine": [Refinement(prompt.fine_prompt, 0, False) for prompt in prompts],
            "refined": refined,
        }
        if config.plug_in:
            written[PLUG_IN] = written["coarse"]
        if config.num_candidates > 1:
            written["refined_shared_noise"] = refined
        if config.rewrite_too and config.mode != "rewrite":
            written["rewrite"] = module.refine(coarse, seeds, refine_settings(prompt_len, config, "rewrite"))
        if config.controls:
            written["control_step0"] = step0.refine(coarse, seeds, settings)
            written["control_t5_direct"] = module.refine_by_decoder_alone(coarse, seeds, settings)
            if shuffled is not None:
                written["control_shuffled"] = module.refine(coarse, seeds, settings, read_instead=shuffled)
        for condition, refinements in written.items():
            noise_candidate = 0 if condition == "refined_shared_noise" else candidate
            for prompt, key, refinement in zip(prompts, keys, refinements, strict=True):
                drawings.append(
                    Drawing(
                        prompt_id=prompt.prompt_id,
                        condition=condition,
                        candidate=candidate,
                        coarse=prompt.coarse_prompt,
                        text=refinement.text,
                        prompt_seed=key,
                        image_seed=image_seed(seed, prompt.prompt_id, noise_candidate),
                        num_new_tokens=refinement.num_new_tokens,
                        truncated=refinement.truncated,
                        by_trained_encoder=condition == PLUG_IN,
                    )
                )
    return drawings


def refine(
    work: Work, module: PromptRefinerModule, at_step_0: Callable[[], PromptRefinerModule], prompts: Sequence[EvalPrompt]
) -> list[Drawing]:
    """The prompts under every condition, as what is to be drawn; `module` is ready to refine from now on."""
    config = work.config
    module.to(module.backbones.text_to_image.device).eval()
    with work.timings.stage("refining"):
        work.console.say(f"refining {len(prompts)} prompts, {config.eval.num_candidates} candidates each")
        drawings = plan_drawings(module, at_step_0, prompts, config.prompt_len, config.eval, config.seed)
    work.stop.check("refining")
    return drawings
