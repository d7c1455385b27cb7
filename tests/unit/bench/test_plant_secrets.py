"""Secrets of forty kinds planted where they are read: the tenth of what `make soak` plants."""

from pathlib import Path

from plant_secrets import CHOSEN, PLACES, measured, spots
from planted_secrets import GENERIC, KNOWN


def test_every_kind_and_every_place_is_planted_with_a_value_of_its_own() -> None:
    planted = list(spots(25, 0))
    assert len(planted) == 1000
    assert {spot.kind for spot in planted} == {*KNOWN, *GENERIC, *CHOSEN}
    assert {spot.place for spot in planted} == {place.name for place in PLACES}
    assert all(
        value in spot.path + spot.text.replace("\\n", "\n") for spot in planted[:400] for value in spot.values[:1]
    )
    values = [value for spot in planted for value in spot.values]
    assert len(set(values)) == len(values)
    assert planted == list(spots(25, 0))


def test_none_of_a_hundred_secrets_is_kept_or_shown(tmp_path: Path) -> None:
    told = measured(tmp_path, each=3, seed=1, trained=False)
    assert (told["planted"], told["kinds"]) == (120, 40)
    assert told["marks_kept"] > 70  # what stands beside a secret is kept, or this proves nothing
    assert told["not_masked"] == {}
    # a UUID and forty letters as a file's name have no form of their own
    assert [one for one in told["survivors"] if one["place"] != "a file's name"] == []
    assert told["found_share"] >= 0.98
