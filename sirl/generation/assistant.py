"""A second model of a run: it attacks the target, or judges it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sirl.errors import ServiceError
from sirl.generation import Endpoint, Generator, TransformersBackend
from sirl.models import ModelSpec, TemplateArguments
from sirl.spec import Spec, Url


class OwnModel(Spec):
    """A model that this process loads."""

    name: Literal["own"] = "own"
    model: ModelSpec
    chat_template_kwargs: TemplateArguments = Field(default_factory=dict)
    """See `BaseParams.chat_template_kwargs`."""
    backend: TransformersBackend = TransformersBackend()


class OpenAIModel(Endpoint):
    """A chat model behind an OpenAI-compatible server: its own templates
    and limits are in force."""

    name: Literal["openai"] = "openai"
    url: Url
    """Up to and with `/v1`."""
    model: str
    chat_template_kwargs: TemplateArguments = Field(default_factory=dict)
    """Sent with every chat, as vLLM and SGLang take them: `{enable_thinking: false}`."""

    def open(self) -> Generator:
        """Connects.

        Raises:
            ServiceError: The server does not answer, or has no such model.
        """
        from sirl.generation.openai import ChatModel

        server = self.server(self.url, self.model)
        if self.model not in (names := server.models()):
            raise ServiceError(
                f"{self.url} does not serve {self.model}", f"Choose from: {', '.join(names[:20])}"
            )
        return ChatModel(server, self.chat_template_kwargs)


AssistantSpec = Annotated[OwnModel | OpenAIModel, Field(discriminator="name")]
