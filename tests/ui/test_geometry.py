"""The structures of a design, as the conversation knows them."""

from __future__ import annotations

import pytest

from imagegen.motifs import FAMILIES
from ui.geometry import DrawnGeometry


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_words_for_what_one_sees_whatever_the_concept(family):
    geometry = DrawnGeometry(lambda *_: None, "a bandage of silk and leaves", (256, 256), 0.6)
    look = geometry.look(family)
    assert len(look.split()) > 2 and look != family.replace("_", " ")
