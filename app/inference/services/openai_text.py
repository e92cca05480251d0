"""`openai_text_3_small` and `openai_text_3_large`, from OpenAI or an endpoint that speaks its protocol."""

from dataclasses import replace

from app.inference.base import Service
from app.inference.definition import Definition
from app.inference.endpoint import OPENAI_URL
from app.inference.providers.openai import OpenAIText, Options, build
from app.inference.references import OPENAI
from app.settings import Settings

MODELS = {
    "openai_text_3_small": ("text-embedding-3-small", 1536),
    "openai_text_3_large": ("text-embedding-3-large", 3072),
}


def services(settings: Settings) -> list[Service]:
    return [_service(name, model, dimension, settings) for name, (model, dimension) in MODELS.items()]


def _service(name: str, model: str, dimension: int, settings: Settings) -> OpenAIText:
    url = settings.openai_base_url or OPENAI_URL
    # The dimension is the models' own default, sent so that a server which ignores it is found out by the length.
    options = Options(base_url=url, api_key_ref=OPENAI, send_dimensions=True, normalized=True)
    definition = Definition(name, "openai", model, dimension, {"base_url": url})
    info = replace(
        build(definition, options, settings).info,
        stored=False,
        description="Many languages; texts above 8,192 tokens are refused. Texts leave this server.",
        licence="proprietary (OpenAI's terms)",
    )
    return OpenAIText(info, options, settings, url_setting="OPENAI_BASE_URL")
