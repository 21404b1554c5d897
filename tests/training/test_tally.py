"""Steps of several stages as one count of what this run does."""

from __future__ import annotations

from training.tally import Tally


def test_steps_of_an_earlier_run_and_of_kept_stages_count_neither_as_done_nor_as_to_do():
    told: list[tuple[int, int, str]] = []
    tally = Tally([40, 100, 30], lambda *each: told.append(each))
    tally.stage("Instruct-CPT")  # kept from an earlier run
    resumed = tally.stage("Instruct-CPT-SFT")
    resumed(60, 100)
    resumed(61, 100)
    resumed(100, 100)
    last = tally.stage("Instruct-CPT-SFT-DPO")
    last(0, 32)  # not quite as expected
    last(32, 32)
    assert told == [
        (0, 70, "Instruct-CPT-SFT, step 60 of 100"),
        (1, 70, "Instruct-CPT-SFT, step 61 of 100"),
        (40, 70, "Instruct-CPT-SFT, step 100 of 100"),
        (40, 72, "Instruct-CPT-SFT-DPO, step 0 of 32"),
        (72, 72, "Instruct-CPT-SFT-DPO, step 32 of 32"),
    ]
