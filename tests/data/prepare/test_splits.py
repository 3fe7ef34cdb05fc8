"""Splits by patient: stable, official ones kept, copies of one photograph never on two sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from fundusgan_jax.data.prepare.splits import (
    Member,
    assign_splits,
    hash_fraction,
    read_splits,
    write_splits,
)
from fundusgan_jax.errors import UserError


def members(count: int, first: int = 0) -> list[Member]:
    return [Member(f"{i}_{eye}", f"p{i}", "") for i in range(first, first + count) for eye in "lr"]


def test_share_of_patients_and_independence_of_order() -> None:
    split_of = assign_splits(members(4000), [], seed=0, test_fraction=0.1).split_of
    assert 0.085 < list(split_of.values()).count("test") / 4000 < 0.115
    assert assign_splits(members(4000)[::-1], [], seed=0, test_fraction=0.1).split_of == split_of
    assert assign_splits(members(4000), [], seed=1, test_fraction=0.1).split_of != split_of
    assert hash_fraction(0, "p1") == pytest.approx(
        0.986221, abs=1e-6
    )  # fixed for ever: stored splits rely on it


def test_new_patients_move_nobody() -> None:
    before = assign_splits(members(50), [], seed=0, test_fraction=0.3).split_of
    after = assign_splits(members(200), [], seed=5, test_fraction=0.8, stored=before).split_of
    assert before.items() <= after.items()


def test_a_handful_of_patients_still_has_two_sides() -> None:
    for seed in range(30):
        sides = assign_splits(members(3), [], seed=seed, test_fraction=0.1).split_of.values()
        assert {"train", "test"} == set(sides)
    assert set(assign_splits(members(1), [], seed=0, test_fraction=0.1).split_of.values()) == {"train"}
    assert set(assign_splits(members(9), [], seed=0, test_fraction=0.0).split_of.values()) == {"train"}


def test_official_splits_are_kept_and_a_patient_on_two_sides_goes_to_train() -> None:
    given = [
        Member("a", "A", "train"),
        Member("b", "B", "test"),
        Member("c", "C", "valid"),
        Member("a2", "A", "test"),
    ]
    assignment = assign_splits(given, [], seed=0, test_fraction=0.1)
    assert assignment.split_of == {"A": "train", "B": "test", "C": "valid"}
    assert assignment.both_sides == ("A",)


def test_links_bring_whole_chains_to_the_training_side() -> None:
    given = [
        Member(name, name, side) for name, side in zip("ABCDE", ("train", "test", "test", "test", "valid"))
    ]
    assignment = assign_splits(given, [("C", "B"), ("A", "B"), ("D", "E")], seed=0, test_fraction=0.1)
    assert assignment.split_of == {"A": "train", "B": "train", "C": "train", "D": "valid", "E": "valid"}
    assert assignment.moved == ("B", "C", "D")


def test_splits_file_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    assert read_splits(path) == {}
    write_splits(path, [("a,1.png", "p, one", "train"), ("b.png", "p, one", "train"), ("c.png", "q", "test")])
    assert read_splits(path) == {"p, one": "train", "q": "test"}
    write_splits(path, [("a", "p", "train"), ("b", "p", "test")])
    with pytest.raises(UserError, match="patient p on two sides"):
        read_splits(path)
    path.write_text("file,patient,split\na,p,tr")
    with pytest.raises(UserError, match="damaged"):
        read_splits(path)


def test_a_chain_of_links_is_one_group() -> None:
    given = members(5000)
    links = [(f"p{i}", f"p{i + 1}") for i in range(4000)]
    split_of = assign_splits(given, links[::-1], seed=0, test_fraction=0.3).split_of
    assert {split_of[f"p{i}"] for i in range(4001)} == {"train"}
    assert {split_of[f"p{i}"] for i in range(4001, 5000)} == {"train", "test"}


def test_a_renamed_patient_column_moves_no_photograph_to_the_testing_side() -> None:
    first = assign_splits(members(200), [], seed=0, test_fraction=0.3)
    files = {member.file: first.split_of[member.patient] for member in members(200)}
    renamed = [member._replace(patient=f"other {member.patient}") for member in members(200)]
    again = assign_splits(renamed, [], seed=0, test_fraction=0.3, stored=first.split_of, stored_files=files)
    assert {member.file: again.split_of[member.patient] for member in renamed} == files
    assert again.regrouped == ()
    # Other groups, under ids that meant others before: nothing goes from training to testing, and it is said who moved.
    shifted = [member._replace(patient=f"p{(int(member.patient[1:]) + number % 2) % 200}")
               for number, member in enumerate(members(200))]  # fmt: skip
    again = assign_splits(shifted, [], seed=0, test_fraction=0.3, stored=first.split_of, stored_files=files)
    after = {member.file: again.split_of[member.patient] for member in shifted}
    assert not [file for file in files if files[file] == "train" and after[file] == "test"]
    moved = {member.patient for member in shifted if files[member.file] != after[member.file]}
    assert moved and set(again.regrouped) == moved
