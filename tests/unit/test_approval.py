"""Who has approved what, read from annotations that may be stale, partial or forged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.stages.approval import Approvals, Approver, join_groups, read_approvals, split_groups

HASH = "9f2c61aa0b1c"
ANN = {
    "kintsugi.dev/approve": HASH,
    "kintsugi.dev/approved-by": "ann",
    "kintsugi.dev/approved-groups": "approvers,system:authenticated",
}
BEN = {
    "kintsugi.dev/second-approve": HASH,
    "kintsugi.dev/second-approved-by": "ben",
    "kintsugi.dev/second-approved-groups": "approvers",
}


def test_an_untouched_action_is_approved_and_rejected_by_nobody() -> None:
    approvals = read_approvals({"note": "hello"}, HASH)

    assert approvals == Approvals()
    assert not approvals.granted(1)
    assert approvals.missing(1) == "approval"


def test_an_approval_names_the_person_and_their_groups() -> None:
    approvals = read_approvals(ANN, HASH)

    assert approvals.granted(1)
    assert approvals.approvers == (Approver("ann", ("approvers", "system:authenticated")),)
    assert approvals.missing(1) == ""


def test_one_approval_is_not_enough_where_two_people_are_asked() -> None:
    approvals = read_approvals(ANN, HASH)

    assert not approvals.granted(2)
    assert approvals.missing(2) == "second approval"


def test_two_people_are_enough_where_two_are_asked() -> None:
    approvals = read_approvals(ANN | BEN, HASH)

    assert approvals.granted(2)
    assert [approver.user for approver in approvals.approvers] == ["ann", "ben"]


def test_a_rejection_outweighs_every_approval() -> None:
    rejection = {"kintsugi.dev/reject": "maintenance", "kintsugi.dev/rejected-by": "cleo"}

    approvals = read_approvals(ANN | BEN | rejection, HASH)

    assert (approvals.rejected_by, approvals.reason) == ("cleo", "maintenance")
    assert not approvals.granted(1)


def test_a_rejection_without_a_name_still_stops_the_action() -> None:
    approvals = read_approvals(ANN | {"kintsugi.dev/reject": "no"}, HASH)

    assert approvals.rejected
    assert not approvals.granted(1)


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        pytest.param(ANN | {"kintsugi.dev/approve": "stale"}, "is stale, but the plan's hash is", id="another plan"),
        pytest.param({"kintsugi.dev/approve": HASH}, "carries no name", id="no stamp"),
        pytest.param({"kintsugi.dev/approved-by": "ann"}, "the stamp is forged", id="a stamp alone"),
        pytest.param(BEN, "without kintsugi.dev/approve", id="the second alone"),
        pytest.param(
            ANN | BEN | {"kintsugi.dev/second-approved-by": "ann"}, "approved twice", id="the same person twice"
        ),
        pytest.param(
            ANN | BEN | {"kintsugi.dev/second-approve": "stale"}, "second-approve is stale", id="second of another plan"
        ),
        pytest.param(ANN | {"kintsugi.dev/second-approved-by": "ben"}, "the stamp is forged", id="second stamp alone"),
    ],
)
def test_an_approval_that_does_not_add_up_is_none_and_says_why(annotations: dict[str, str], says: str) -> None:
    approvals = read_approvals(annotations, HASH)

    assert says in approvals.problem
    assert not approvals.granted(1)
    assert approvals.approvers == ()


@pytest.mark.parametrize("key", ["kintsugi.dev/Approve", "Kintsugi.dev/approve", "kintsugi.dev/approve ", "approve"])
def test_a_key_that_only_looks_like_ours_approves_nothing(key: str) -> None:
    stamped = {"kintsugi.dev/approved-groups": "", key: HASH}

    assert not read_approvals(stamped, HASH).granted(1)


def test_a_group_with_a_comma_in_its_name_does_not_become_two() -> None:
    assert split_groups(join_groups(("dev,approvers", "100%2C"))) == ("dev,approvers", "100%2C")


@given(st.lists(st.text(min_size=1)))
def test_groups_survive_joining_and_splitting(groups: list[str]) -> None:
    assert split_groups(join_groups(tuple(groups))) == tuple(groups)
