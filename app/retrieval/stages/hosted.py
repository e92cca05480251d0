"""What stages on the host have in common: texts with templates, `when`, and what those share that ask a model."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from app.errors import InferenceUnavailable, InvalidRequest, PgretrieveError, Problem
from app.retrieval.host import TOKENIZERS, Host, Prompt, Row
from app.retrieval.stages.base import Check, HostStage
from app.retrieval.templates import Template, input_names, scope_names, unlift

# Calls that a stage has under way at a time.
CONCURRENCY = 5
# Characters of a whole document in a prompt.
MAX_DOCUMENT_CHARS = 20_000
# Characters that a stage may write into documents or a prompt, all in all; each template is bounded by itself.
MAX_WRITTEN_CHARS = 20_000_000
OF_THE_REQUEST = frozenset({"missing_input", "secret_refused", "written_too_much"})


def given(text: str | None) -> str | None:
    """A text that was given: the generated client's models say "null" where none is."""
    return None if text in (None, "", "null") else text


def check_text(check: Check, name: str, value: Any, *, needed: bool = True) -> None:
    """A parameter that is a text, perhaps with templates; a secret must not be in it."""
    if not isinstance(value, str | Template) or (needed and not value):
        check.add("bad_parameter", f"{name} is a text.", name)
    elif secrets_in(value):
        check.add("secret_refused", f"{name} takes no secret: it would be sent or shown.", name)


def secrets_in(value: Any) -> list[str]:
    """The names of the secrets that a structure reads."""
    return sorted(name.removeprefix("secret.") for name in scope_names(value) if name.startswith("secret."))


def check_when(check: Check, when: Any) -> None:
    """A filter that says which documents a stage is for; decided by the database, so it reads inputs alone."""
    if when is None:
        return
    if scope_names(when):
        check.add("bad_filter", "`when` reads INPUT only: name fields of the document by `field`.", "when")
    else:
        check.filter(unlift(when), "when")


def check_tokenizer(check: Check, name: str, value: str) -> None:
    if value not in TOKENIZERS:
        message = f"No tokenizer {value!r} here; there are {', '.join(TOKENIZERS)}."
        check.add("unknown_tokenizer", message, name)


def check_written(chars: int) -> None:
    """Refuse what a stage has written when it is too much."""
    if chars > MAX_WRITTEN_CHARS:
        message = f"A stage writes at most {MAX_WRITTEN_CHARS:,} characters: put a limit before it."
        raise InvalidRequest([Problem(("body", "stages"), "written_too_much", message)])


async def chosen(when: Any, rows: Sequence[Row], host: Host) -> list[Row]:
    """The rows that a stage is for."""
    if when is None or not rows:
        return list(rows)
    kept = await host.matching(when, rows)
    return [row for row, keeps in zip(rows, kept, strict=True) if keeps]


async def each_alone(work: Callable[[Row], Awaitable[Any]], rows: Sequence[Row], host: Host) -> list[Any]:
    """The results of the rows, or what one raised in its place; raises what is wrong with the request itself."""
    results = await host.each(work, rows, concurrency=CONCURRENCY)
    for result in results:
        if isinstance(result, PgretrieveError) and result.error_code in OF_THE_REQUEST:
            raise result
    return results


async def done(
    work: Callable[[Row], Awaitable[Any]], rows: Sequence[Row], host: Host, *, what: str
) -> list[tuple[Row, Any]]:
    """Each row with the result of its work; those that failed are left out, counted and warned of.

    Raises the first failure where all failed.
    """
    results = await each_alone(work, rows, host)
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        if len(failed) == len(rows):
            raise failed[0]
        host.tell("failed", len(failed))
        host.warn(f"{what} failed for {len(failed)} of {len(rows)} documents: {_said(failed[0])}")
    return [(row, result) for row, result in zip(rows, results, strict=True) if not isinstance(result, Exception)]


def bad_answer(expected: str) -> InferenceUnavailable:
    """The error of a model that answered something else."""
    message = f"The language model did not answer {expected}."
    return InferenceUnavailable(message, code="inference_bad_answer", service="chat")


def _said(error: Exception) -> str:
    return error.message if isinstance(error, PgretrieveError) else str(error)


class ModelStage(HostStage, frozen=True, kw_only=True):
    """A stage that asks a language model, at the endpoint of `PGRETRIEVE_CHAT_BASE_URL`."""

    not_offered: ClassVar[frozenset[str]] = frozenset({"feature_uri", "inference_name"})

    provider: str | None = None
    api_key: Any = None

    def check_model(self, check: Check) -> None:
        if given(self.provider) not in (None, "openai"):
            message = (
                f"The provider {self.provider!r} is not offered: this server asks one endpoint that speaks OpenAI's "
                "protocol (PGRETRIEVE_CHAT_BASE_URL). Leave provider out."
            )
            check.add("not_offered", message, "provider")
        key = self.api_key
        if key is None or key == "null":
            return
        # Not what was sent: it may be the key itself.
        if not (isinstance(key, Template) and len(secrets_in(key)) == 1 and not input_names(key)):
            message = "api_key names a secret of the server: {{SECRET.name}}. Never the key itself."
            check.add("secret_refused", message, "api_key")

    def key(self, host: Host) -> str | None:
        return str(host.fill(self.api_key)) if isinstance(self.api_key, Template) else None

    def asking(self, host: Host, text: Any, model: str | None, **more: Any) -> Prompt:
        return Prompt(text=str(text), model=given(model), api_key=self.key(host), **more)
