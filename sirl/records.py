"""The typed rows that pass between stages, and how they are written: append-only JSONL, resumable
by id.

A row is a frozen dataclass with an `id` that is unique in its file. `append` flushes each row in
one write, so a killed process leaves at most one torn last line, which `read` with
`torn_tail="drop"` forgives and a resumed run regenerates. Finished files are put in place by
`write`, atomically.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from sirl.errors import DataError

Outcome = Literal["refusal", "harmless", "compliance", "degenerate", "undetermined"]


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Prompt:
    """A request as its source has it. No label of the source is kept.

    Attributes:
        id: `<source>/<stable key>`, for example `harmbench/17`.
        text: The request.
        source: The name of the source spec that brought it.
        kind: What the source as a whole is for; it decides over-refusal against defence, never
            training.
    """

    id: str
    text: str
    source: str
    kind: Literal["harmful", "benign"]


@dataclass(frozen=True)
class Completion:
    """A generated response with the entropy of every sampled token.

    Attributes:
        id: The id of the request it answers.
        text: Decoded response, special tokens removed, in full.
        token_ids: Response token ids, (T,), the end token included when it was sampled; empty where
            the backend tells their number alone, `tokens`.
        entropies: Entropy in nats of the full-vocabulary distribution each token was sampled from,
            (T,); empty where the backend cannot tell.
        finish: `stop` when the end token was sampled, `length` when the limit cut the response,
            `error` when there is none: `note` says why.
        prompt_tokens: Length of the templated prompt in tokens.
        logprobs: Log-probability in nats of each sampled token at the sampling temperature, before
            top-p, (T,); empty for greedy decoding and where the backend cannot tell.
    """

    id: str
    text: str
    token_ids: tuple[int, ...]
    entropies: tuple[float, ...]
    finish: Literal["stop", "length", "error"]
    prompt_tokens: int
    logprobs: tuple[float, ...] = ()
    note: str = ""
    tokens: int = 0

    @property
    def response_tokens(self) -> int:
        """Length of the response in tokens, the end token included."""
        return len(self.token_ids) or self.tokens

    @property
    def entropy(self) -> float:
        """Response entropy: the mean over response tokens, nats (paper eq. 2)."""
        return sum(self.entropies) / len(self.entropies) if self.entropies else float("nan")

    @property
    def logprob(self) -> float:
        """Mean log-probability of the response's tokens, nats: minus the log of its perplexity."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else float("nan")


@dataclass(frozen=True)
class ProfiledResponse:
    """One response of the profiled model to one prompt, under an attack, `direct` or `benign`."""

    id: str
    prompt_id: str
    attack: str
    kind: Literal["harmful", "benign"]
    prompt: str
    text: str
    tokens: tuple[str, ...]
    entropies: tuple[float, ...]
    finish: Literal["stop", "length"]
    outcome: Outcome


@dataclass(frozen=True)
class TrainStep:
    """Metrics of one optimiser step. `metrics` maps a name (`entropy`, `kl`, `refusal/benign`) to a
    value."""

    id: str
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrainSample:
    """A sampled training response, kept for the report."""

    id: str
    step: int
    prompt: str
    text: str
    tokens: tuple[str, ...]
    entropies: tuple[float, ...]
    reward: float
    advantage: float


@dataclass(frozen=True)
class Used:
    """What an attack spent on one behaviour, or on several.

    Attributes:
        queries: Chats sent to the target.
        tokens: Tokens that the target and the attacker read and wrote.
        attacker_refused: Times that the attacker model declined to attack.
    """

    queries: int = 1
    tokens: int = 0
    attacker_refused: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(
            self.queries + other.queries,
            self.tokens + other.tokens,
            self.attacker_refused + other.attacker_refused,
        )


@dataclass(frozen=True)
class Transcript:
    """What one attack on one behaviour sent and what the model answered.

    Attributes:
        id: `<attack>:<behaviour id>[:<try>]`.
        attack: Name of the attack; `direct` for the plain request and `benign` for over-refusal
            prompts.
        attack_class: The family, for grouping in tables.
        behaviour_id: `Prompt.id` of the original request.
        request: The original request, untouched: what judges judge against.
        messages: The attacked prompt as it was sent.
        response: The whole response.
        entropy: Response entropy in nats, or None where the backend cannot tell.
        finish: `length` marks a truncated response; `error` an item that could not be run (`note`
            says why).
        used: What it cost, searches that came to nothing included.
    """

    id: str
    attack: str
    attack_class: str
    behaviour_id: str
    kind: Literal["harmful", "benign"]
    request: str
    messages: tuple[Message, ...]
    response: str
    response_tokens: int
    entropy: float | None
    finish: Literal["stop", "length", "error"]
    note: str = ""
    used: Used = Used()


@dataclass(frozen=True)
class Verdict:
    """One judge's word on one transcript.

    `undetermined` is neither safe nor unsafe: the judge failed, and `reason` says how. Safe but
    shown apart are `harmless` (no refusal, and yet not what was asked for: an answer to something
    else, or what a judge that knows no refusals calls safe) and `degenerate` text (empty, repeated,
    gibberish), which is neither a refusal nor help. `score` is the judge's own number, where it
    gives one.
    """

    id: str
    transcript_id: str
    judge: str
    outcome: Outcome
    reason: str = ""
    score: float | None = None


@dataclass(frozen=True)
class CapabilityItem:
    """One scored item of one benchmark. `id` is `<benchmark>/<key>`; `score` is in [0, 1]."""

    id: str
    benchmark: str
    score: float
    detail: Mapping[str, Any] = field(default_factory=dict)


Row = TypeVar("Row")


def read(
    path: Path, row_type: type[Row], *, torn_tail: Literal["refuse", "drop"] = "refuse"
) -> Iterator[Row]:
    """Yields validated rows of a JSONL file, memory flat in its length.

    Args:
        path: The file.
        row_type: One of the dataclasses above.
        torn_tail: `drop` forgives a last line without a newline (a killed writer); `refuse` raises.

    Raises:
        DataError: The file is missing, or a line is not valid: file, line and reason are named.
    """
    adapter = TypeAdapter(row_type)
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist", "Run the stage that writes it: dvc repro"
        ) from None
    with stream:
        for number, line in enumerate(stream, start=1):
            if torn_tail == "drop" and not line.endswith(b"\n"):
                return
            try:
                yield adapter.validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                where = ".".join(str(part) for part in first["loc"])
                raise DataError(
                    f"{path}, line {number}: {where + ': ' if where else ''}{first['msg']}"
                ) from None


def dumps(row: Any) -> bytes:
    """One canonical JSON line of a row: keys sorted, UTF-8, newline at the end."""
    text = json.dumps(dataclasses.asdict(row), ensure_ascii=False, sort_keys=True, allow_nan=False)
    return text.encode("utf-8", errors="replace") + b"\n"


def write(path: Path, rows: Iterable[Any]) -> int:
    """Writes rows to `path` atomically. Returns how many."""
    count = 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        for row in rows:
            count += 1
            yield dumps(row)

    write_bytes(path, lines())
    return count


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON document atomically: indented, keys sorted, so that equal values are equal
    bytes."""
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_bytes(path, [text.encode()])


def read_json(path: Path) -> Any:
    """Reads a JSON document.

    Raises:
        DataError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist", "Run the stage that writes it: dvc repro"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None


def write_bytes(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes chunks to a temporary neighbour, then renames: a reader sees the old file or the whole
    new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with _taken(temporary) as stream:
        try:
            for chunk in chunks:
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _taken(temporary: Path) -> BinaryIO:
    """An empty file of this name that no other process writes. Its name says whose it is, so what
    a killed writer left is taken over and does not stay in a folder that DVC hashes."""
    while True:
        stream = temporary.open("ab")
        fcntl.flock(stream, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), temporary.stat()):
                stream.truncate(0)
                return stream
        stream.close()  # whoever had it has renamed or removed it


class Appender:
    """Appends rows to a JSONL file and knows which ids it already holds, so that a rerun skips
    them.

    A torn last line, left by a killed process, is cut off on opening.
    """

    def __init__(self, path: Path, row_type: type[Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: set[str] = set()
        if path.exists():
            self._cut_torn_tail()
            self.done = {row.id for row in read(path, row_type)}
        self._stream = path.open("ab")

    def _cut_torn_tail(self) -> None:
        with self.path.open("r+b") as stream:
            content_end = 0
            for line in stream:
                if line.endswith(b"\n"):
                    content_end += len(line)
            stream.truncate(content_end)

    def append(self, rows: Iterable[Any]) -> None:
        """Writes rows and flushes them to disk; a row whose id is already there is an error of the
        caller."""
        for row in rows:
            if row.id in self.done:
                raise ValueError(f"row {row.id} is already in {self.path}")
            self._stream.write(dumps(row))
            self.done.add(row.id)
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def digest_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_folder(path: Path) -> str:
    """SHA-256 over the relative names and digests of every file below a folder, in sorted order,
    hex."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return digest_of({f.relative_to(path).as_posix(): digest_file(f) for f in files})


def digest_of(files: Mapping[str, str]) -> str:
    """The digest of a folder out of those of its files, by relative name."""
    total = hashlib.sha256()
    for name, digest in sorted(files.items(), key=lambda item: Path(item[0])):
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of plain data, hex: the key of resume state."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
