"""The long run of made-up requests over every operation."""

from collections.abc import Callable

import pytest
from schemathesis import GenerationMode

from app import service
from app.settings import Settings
from tests import fuzz
from tests.http import ROOT_KEY


@pytest.mark.campaign
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_thousands_of_made_up_requests_find_no_fault(
    settings: Settings, fresh_database: Callable[[], str], mode: GenerationMode
) -> None:
    with service.in_background(settings, fresh_database(), ROOT_KEY) as url:
        fuzz.prepare(url)
        for operation in fuzz.operations(url):
            fuzz.fuzz(url, operation, 200, mode)
