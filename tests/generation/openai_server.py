"""An OpenAI-compatible server on loopback over the tiny model, with troubles to order."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from aiohttp import web

from sirl.generation.transformers import TransformersGenerator


class OpenAIServer:
    """Answers as vLLM does, in its words and by its settings.

    Attributes:
        defaults: Settings of a request that does not say them, as a generation config has them.
        troubles: Replies to give first, one a POST: a status, headers and a body; None hangs.
        changes: Laid over each reply to a POST.
        most: Requests that were under way together at most.
        paths: How often each was asked.
        keys: The `Authorization` headers seen.
    """

    def __init__(self, generator: TransformersGenerator, model: str) -> None:
        self.generator = generator
        self.model = model
        self.troubles: list[tuple[int, dict[str, str], Any] | None] = []
        self.changes: dict[str, Any] = {}
        self.defaults: dict[str, Any] = {}
        self.hangs = False
        self.most = self.now = 0
        self.paths: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()

    async def models(self, request: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.sleep(60)
        return web.json_response({"data": [{"id": self.model}]})

    async def post(self, request: web.Request) -> web.Response:
        self.paths[request.path] += 1
        self.keys.add(request.headers.get("Authorization"))
        if self.hangs:
            await asyncio.sleep(60)
        if self.troubles:
            trouble = self.troubles.pop(0)
            if trouble is None:
                await asyncio.sleep(60)
                raise AssertionError
            status, headers, body = trouble
            text = body if isinstance(body, str) else None
            if text is not None:
                return web.Response(status=status, headers=headers, text=text)
            return web.json_response(body, status=status, headers=headers)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        self.now -= 1
        body = await request.json()
        self.bodies.append(body)
        chat = request.path.endswith("/chat/completions")
        prompt = self._templated(body) if chat else body["prompt"]
        choice, usage = self._answer(prompt, {**self.defaults, **body})
        if chat:
            choice["message"] = {"role": "assistant", "content": choice.pop("text")}
        return web.json_response(
            {"model": self.model, "choices": [choice], "usage": usage, **self.changes}
        )

    def _templated(self, body: dict[str, Any]) -> list[int]:
        ids: list[int] = self.generator.tokenizer.apply_chat_template(
            body["messages"],
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
            return_dict=False,
        )
        return ids

    @torch.no_grad()
    def _answer(
        self, prompt: list[int], body: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, int]]:
        generator = self.generator
        settings: dict[str, Any] = {"do_sample": False}
        if body.get("temperature", 1.0) > 0:
            shape = {name: body[name] for name in ("temperature", "top_p", "min_p") if name in body}
            settings = {"do_sample": True, "top_k": body.get("top_k", 0), **shape}
        torch.manual_seed(body.get("seed", 0))
        output = generator.model.generate(  # type: ignore[operator]
            torch.tensor([prompt]),
            max_new_tokens=body["max_tokens"],
            min_new_tokens=body.get("min_tokens", 0),
            repetition_penalty=body.get("repetition_penalty", 1.0),
            eos_token_id=body.get("stop_token_ids", sorted(generator.end_ids)),
            **settings,
        )
        ids = output[0, len(prompt) :].tolist()
        choice = {
            "text": generator.tokenizer.decode(ids, skip_special_tokens=True),
            "finish_reason": "stop" if ids[-1] in generator.end_ids else "length",
        }
        if body.get("return_token_ids"):
            choice["token_ids"] = ids
        if body.get("prompt_logprobs"):
            log_p = generator.model(torch.tensor([prompt])).logits[0].log_softmax(-1)
            ranks = log_p.argsort(-1, descending=True).argsort(-1)
            choice["prompt_logprobs"] = [None] + [
                {str(t): {"logprob": float(log_p[i, t]), "rank": int(ranks[i, t]) + 1}}
                for i, t in enumerate(prompt[1:])
            ]
        return choice, {"prompt_tokens": len(prompt), "completion_tokens": len(ids)}


@contextmanager
def serving(server: OpenAIServer) -> Iterator[str]:
    """Serves on a free port of loopback; gives the URL, `/v1` included."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/{rest:.*}", server.post)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    port = runner.addresses[0][1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
