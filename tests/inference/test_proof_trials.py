"""The proof on real texts with the real models, as `bench.proof` measures it, smaller: every verdict is right."""

import pytest

from bench.proof import CASES, E5, Case, measure

# The field is looked for by every service again: the largest part of the work, and the same for each.
SLOW = [case for case in CASES if len(case.fields) > 1 and case.service == E5]


@pytest.mark.timeout(300)
async def test_the_true_model_is_accepted_and_the_wrong_one_rejected() -> None:
    cases: list[Case] = [case for case in CASES if case not in SLOW]
    results = await measure(texts=48, trials=6, rows=40, cases=cases)
    wrong = [(each.case.about, each.case.service, dict(each.verdicts)) for each in results if each.right < each.trials]
    assert wrong == []
    assert len(results) > 15
