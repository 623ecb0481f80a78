"""Whatever happens: a gap is told exactly when something is missing. At length in ``drills/test_hub_resume.py``."""

from __future__ import annotations

import pytest

from tests.hub.resume_fuzz import Fuzz
from tests.hub.stand_ins import in_a_loop


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["lag", "loss", "forgetting"])
@in_a_loop
async def test_a_gap_is_told_exactly_when_something_is_missing(kind: str, seed: int) -> None:
    fuzz = Fuzz(seed, lossy=kind != "lag", forgets=kind == "forgetting")
    await fuzz.run(170)
    assert fuzz.counts["gaps"]
    assert fuzz.counts["recovered"]
