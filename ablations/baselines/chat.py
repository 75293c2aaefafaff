"""The baseline by a chat model, GPT-3.5, GPT-4 or any other behind an OpenAI-compatible endpoint.

The authors did not publish their instruction; ours is `INSTRUCTION`. Every answer is kept as it came, by the digest of the request
(address, model, messages, sampling, seed; never the key), so that none is paid for twice. A model's refusal and a text that is not one
prompt are answers, too: they count as failed, and are not asked for again. What brought no answer (an error status, a time-out, no JSON)
counts as failed in this run, and is asked again in the next. Imports no heavy library.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ablations.baselines.base import AnswerStore, Asked, Written
from ablations.baselines.chat_settings import INSTRUCTION, MAX_TOKENS, ChatModel, Prices
from ablations.baselines.endpoint import ChatEndpoint, NoAnswer, Unreachable
from ablations.baselines.register import Context
from ablations.runtime.errors import UserError
from lightning_modules.settings import TokenSampling

# As the sampling of all methods is; a temperature of 1 leaves the model's own distribution.
_TEMPERATURE = 1.0
_REFUSAL = re.compile(
    r"^(i['\u2019]?m sorry|i am sorry|sorry,|i apologi[sz]e|i cannot|i can['\u2019]?t|i can not|i won['\u2019]?t|i am unable"
    r"|i['\u2019]?m unable|i['\u2019]?m not able|i am not able|as an ai|unfortunately, i)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^(improved |refined |rewritten )?prompt\s*:\s*", re.IGNORECASE)
# Requests in a row without any answer, after which the endpoint counts as gone rather than the prompts as failed.
_GIVE_UP_AFTER = 3


class ChatBaseline:
    """Asks a chat model for each prompt. `sampling.top_k` 0 is not sent: OpenAI's own endpoint has no such setting.

    As many requests are open at a time as the endpoint is to be asked; results come in the order of what was asked.
    """

    def __init__(
        self,
        model: ChatModel,
        endpoint: ChatEndpoint,
        store: AnswerStore,
        *,
        instruction: str = INSTRUCTION,
        sampling: TokenSampling,
        prices: Prices | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        self.name, self.title = f"chat-{model.slug}", model.name
        how = f"top-p {sampling.top_p:g}" + (f", top-k {sampling.top_k}" if sampling.top_k else ", no top-k")
        self.about = f"{model.name} at {endpoint.url}, {how}, instruction ours (the authors' is not published): {instruction}"
        self._model, self._endpoint, self._store, self._instruction = model.model, endpoint, store, instruction
        self._sampling, self._prices, self._check = sampling, prices, check
        self._lock = threading.Lock()
        self._texts: dict[str, list[str]] = {}
        self._unanswered = 0
        self._asked = self._known = self._read = self._written = self._without_usage = 0

    def prepare(self) -> None:
        pass

    def write(self, seed: int, asked: Sequence[Asked]) -> list[Written]:
        over = threading.Event()  # what makes one impossible makes the others impossible, too

        def one_of_them(one: Asked) -> Written:
            if over.is_set():
                return Written.failed("not asked")
            try:
                return self._write(one)
            except BaseException:
                over.set()
                raise

        with ThreadPoolExecutor(self._endpoint.at_once, thread_name_prefix="chat") as pool:
            written = [waiting.result() for waiting in [pool.submit(one_of_them, one) for one in asked]]
        for one, result in zip(asked, written, strict=True):
            if not result.failure:
                self._texts.setdefault(one.coarse_prompt, []).append(result.text)
        return written

    def _write(self, asked: Asked) -> Written:
        self._check()
        body = self._body(asked)
        digest = AnswerStore.digest([self._endpoint.url, body])
        with self._lock:
            answer = self._store.get(digest)
            self._known += answer is not None
            self._asked += answer is None
        if answer is not None:
            return read_answer(answer)
        try:
            answer = self._endpoint.ask(body)
        except Unreachable as error:
            with self._lock:
                self._unanswered += 1
                unanswered = self._unanswered
            if unanswered >= _GIVE_UP_AFTER:
                raise UserError(
                    f"{self._endpoint.url} did not answer {unanswered} requests in a row ({error}): try again later; "
                    "the answers so far are kept"
                ) from None
            return Written.failed(f"no answer: {error}")
        except NoAnswer as error:
            self._unanswered = 0
            return Written.failed(str(error))
        with self._lock:
            self._unanswered = 0
            self._count(answer)
        self._store.put(digest, answer)
        return read_answer(answer)

    def _body(self, asked: Asked) -> dict:
        return {
            "model": self._model,
            "messages": [{"role": "system", "content": self._instruction}, {"role": "user", "content": asked.coarse_prompt}],
            "temperature": _TEMPERATURE,
            "top_p": self._sampling.top_p,
            **({"top_k": self._sampling.top_k} if self._sampling.top_k else {}),
            "max_tokens": MAX_TOKENS,
            # Servers take 31 bits; equal seeds need not give equal answers, which is one more reason to keep them.
            "seed": asked.key % 2**31,
        }

    def _count(self, answer: dict) -> None:
        usage = answer.get("usage")
        numbers = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
        if numbers and all(isinstance(number, int) for number in numbers):
            self._read += numbers[0]
            self._written += numbers[1]
        else:
            self._without_usage += 1

    def close(self) -> None:
        pass

    def _never_samples(self) -> bool:
        several = [texts for texts in self._texts.values() if len(texts) > 1]
        return len(several) > 1 and all(len(set(texts)) == 1 for texts in several)

    def cost(self) -> str:
        """As in "12 requests (84 answers from the cache), 1,032 tokens read and 480 written, $0.0031"."""
        line = f"{self._asked} requests ({self._known} answers from the cache), {self._read:,} tokens read and {self._written:,} written"
        if self._without_usage:
            line += f", and {self._without_usage} answers that did not say how many"
        if self._never_samples():
            line += "; every candidate of a prompt has the same text, so the server does not sample"
        if self._prices is None:
            return f"{line}; cost unknown (--chat-price tells prices)"
        return f"{line}, ${(self._read * self._prices.read + self._written * self._prices.written) / 1e6:.4f}"


def read_answer(answer: dict) -> Written:
    """The prompt in an answer of the chat API, or why there is none: a refusal, or not what was asked for."""
    try:
        choice = answer["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        return Written.failed("malformed answer: no choices[0].message")
    if refusal or finish == "content_filter":
        return Written.failed("refused")
    if not isinstance(content, str):
        return Written.failed("malformed answer: no text")
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return read_text(content, tokens if isinstance(tokens, int) else 0, finish == "length")


def read_text(content: str, num_tokens: int, truncated: bool) -> Written:
    """The prompt in what a chat model said, or why there is none: a refusal, or several lines where one was asked for."""
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if not lines:
        return Written.failed("malformed answer: empty")
    if _REFUSAL.match(lines[0]):
        return Written.failed("refused")
    if len(lines) > 1:
        return Written.failed(f"malformed answer: {len(lines)} lines, one was asked for")
    text = " ".join(_LABEL.sub("", lines[0]).split())
    for left, right in ('""', "''", "``", "\u201c\u201d"):
        if len(text) > 1 and text[0] == left and text[-1] == right:
            text = text[1:-1].strip()
    return Written(text, num_tokens, truncated) if text else Written.failed("malformed answer: empty")


def build_chat(context: Context, model: ChatModel) -> ChatBaseline:
    """The baseline of a chat model, which --chat names: there is no row for each, as an endpoint's models are its own."""
    chat = context.chat
    return ChatBaseline(
        model,
        ChatEndpoint(chat.url, chat.key, chat.patience, context.say, context.check),
        context.answers("chat"),
        instruction=chat.instruction,
        sampling=TokenSampling(context.config.eval.top_p, chat.top_k or 0),
        prices=chat.prices,
        check=context.check,
    )
