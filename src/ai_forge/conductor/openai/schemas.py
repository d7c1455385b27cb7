"""OpenAI's requests, the fields that are passed on. Others that clients send (`user`, `store`, `metadata` …) change no answer
here and are left out; none reaches the runtime unseen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from ai_forge.json_lines import JsonObject

__all__ = ["ChatMessage", "ChatRequest", "CompletionRequest", "EmbeddingRequest", "OpenAIBody", "Sampled"]

Number = StrictFloat | StrictInt
MODEL = "NAME asks with what is found of the repository, NAME:plain without; the one deployed last where it is left out"


class OpenAIBody(BaseModel):
    """A request, or a part of one; what it has beside its fields is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class TextPart(OpenAIBody):
    """A part of a message; pictures and sound are refused."""

    type: Literal["text"]
    text: StrictStr


class ChatMessage(OpenAIBody):
    """A turn. Content may be a text or a list of text parts."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: StrictStr | list[TextPart] | None = None
    name: StrictStr | None = None
    tool_calls: list[JsonObject] | None = None
    tool_call_id: StrictStr | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""

    def passed_on(self) -> JsonObject:
        """As a runtime takes it."""
        role = "system" if self.role == "developer" else self.role
        more = self.model_dump(include={"tool_calls", "tool_call_id"}, exclude_none=True)
        return {"role": role, "content": self.text} | more


class StreamOptions(OpenAIBody):
    """What a stream tells beside its pieces."""

    include_usage: StrictBool = False


class Sampled(OpenAIBody):
    """What chats and completions share."""

    model: StrictStr | None = Field(None, description=MODEL)
    stream: StrictBool | None = Field(False, description="pieces as they come, as server-sent events")
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="longest answer, within service.max_answer_tokens; as deployed otherwise"
    )
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        None, description="0 is greedy; as deployed otherwise"
    )
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=8)] | None = Field(None, description="how many answers")
    stop: StrictStr | Annotated[list[StrictStr], Field(max_length=64)] | None = Field(
        None, description="ends an answer, beside the model's own stop words"
    )
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        dict[Annotated[StrictStr, Field(pattern=r"^\d{1,7}$")], Annotated[Number, Field(ge=-100, le=100)]] | None
    ) = None

    @property
    def stop_words(self) -> list[str]:
        """`stop` as a list, without empty words, which would end every answer at once."""
        words = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [word for word in words if word]


class ResponseFormat(OpenAIBody):
    """`json_schema` holds the schema under `schema`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonObject | None = None


class FunctionTool(OpenAIBody):
    """A function that the model may ask to have called."""

    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: StrictStr | None = None
    parameters: JsonObject | None = None


class Tool(OpenAIBody):
    """A tool."""

    type: Literal["function"]
    function: FunctionTool


class FunctionName(OpenAIBody):
    """Which function."""

    name: StrictStr


class ToolChoice(OpenAIBody):
    """The one tool that must be called."""

    type: Literal["function"]
    function: FunctionName


class ChatRequest(Sampled):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(None, description="as max_tokens")
    response_format: ResponseFormat | None = Field(None, description="JSON mode")
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None

    @property
    def wanted_tokens(self) -> int | None:
        """The longest answer that is asked for."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(Sampled):
    """`POST /v1/completions`: the text goes on, without a chat template. With `suffix` the middle is filled in."""

    prompt: StrictStr | Annotated[list[StrictStr], Field(min_length=1, max_length=1)]
    suffix: StrictStr | None = Field(None, description="what comes after; for bases that were trained to fill in")

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def wanted_tokens(self) -> int | None:
        """The longest answer that is asked for."""
        return self.max_tokens


Texts = Annotated[list[StrictStr], Field(min_length=1, max_length=512)]
Tokens = Annotated[list[StrictInt], Field(min_length=1, max_length=8192)]


class EmbeddingRequest(OpenAIBody):
    """`POST /v1/embeddings`."""

    input: StrictStr | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1, max_length=512)] = Field(
        description="a text or several; token ids are refused, which do not say whose vocabulary they are of"
    )
    model: StrictStr | None = Field(None, description="a deployed model, or an embedder on this machine such as minilm")
    encoding_format: Literal["float", "base64"] = "float"

    @property
    def texts(self) -> list[str]:
        """The inputs as a list; nothing where they are token ids."""
        if isinstance(self.input, str):
            return [self.input]
        return [text for text in self.input if isinstance(text, str)]


class Usage(BaseModel):
    """Tokens read and written."""

    model_config = ConfigDict(extra="allow")

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Citation(BaseModel):
    """A place of the repository that was shown. `cited`: the answer names it."""

    path: str
    first_line: int | None
    last_line: int | None
    name: str
    cited: bool


class ChatCompletion(BaseModel):
    """OpenAI's answer; `citations` are ours."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created: int
    model: str
    choices: list[JsonObject]
    usage: Usage | None = None
    citations: list[Citation] | None = None


class Embedding(BaseModel):
    """A vector: numbers, or their float32 bytes in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Embeddings(BaseModel):
    """OpenAI's list of vectors."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage
