"""Counting and cutting by tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.inference import tokenizers
from app.retrieval.host import TOKENIZERS


async def test_cl100k_is_what_openai_says() -> None:
    # The counts of OpenAI's cookbook for tiktoken.
    counts = {
        "tiktoken is great!": 6,
        "お誕生日おめでとう": 9,
        "antidisestablishmentarianism": 6,
        "2 + 2 = 4": 7,
        "": 0,
    }
    for text, count in counts.items():
        assert await tokenizers.cut("cl100k_base", text) == (text, count)
    assert (await tokenizers.cut("cl100k_base", "<|endoftext|>"))[1] > 1, "a text, not a sign"


async def test_a_name_that_is_not_known() -> None:
    with pytest.raises(InvalidRequest, match="No tokenizer 'gpt2'"):
        await tokenizers.cut("gpt2", "x")


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=60), most=st.integers(0, 20))
async def test_a_cut_is_a_beginning_that_fits(name: str, text: str, most: int) -> None:
    kept, count = await tokenizers.cut(name, text, most)
    assert count <= most
    assert text.startswith(kept)
    whole, all_of_it = await tokenizers.cut(name, text)
    assert whole == text
    if all_of_it <= most:
        assert kept == text
