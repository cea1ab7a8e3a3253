"""The table that every soak test ends with."""

import pytest
from tally import SOAK, Tally


@pytest.fixture(scope="module")
def tally(request):
    """Counts of the good outcomes in ``OUTCOMES`` of the test's module, printed when its tests are done."""
    counts = Tally(*request.module.OUTCOMES)
    yield counts
    if SOAK:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n{request.module.__doc__.splitlines()[0]}\n\n{counts}\n")
