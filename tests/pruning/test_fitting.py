"""Adam on a least-squares problem against its closed form, and which epoch is taken."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pruning.fitting import Schedule, minimise

X = torch.randn(200, 5, generator=torch.Generator().manual_seed(1))
Y = X @ torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5]) + 0.1 * torch.randn(200, generator=torch.Generator().manual_seed(2))
ROWS = [slice(start, start + 20) for start in range(0, 200, 20)]
START = {"w": torch.ones(5)}


def loss(tensors: Mapping[str, torch.Tensor], batch: int) -> torch.Tensor:
    return (X[ROWS[batch]] @ tensors["w"] - Y[ROWS[batch]]).square().mean()


def held_out(tensors: Mapping[str, torch.Tensor]) -> float:
    return float((X @ tensors["w"].float() - Y).square().mean())


def test_a_least_squares_problem_ends_at_its_closed_form() -> None:
    found = minimise(START, loss, range(10), held_out, Schedule(epochs=60, rates=(0.1,)))
    torch.testing.assert_close(found.tensors["w"], torch.linalg.lstsq(X, Y[:, None]).solution[:, 0], rtol=0, atol=0.01)
    assert found.after == held_out(found.tensors) < found.before == held_out(START)


def test_the_start_stays_where_no_epoch_is_better_on_what_is_held_out() -> None:
    found = minimise(START, loss, range(10), lambda tensors: -held_out(tensors), Schedule(epochs=3, rates=(0.1,)))
    assert found.epoch == 0 and found.tensors["w"] is START["w"] and found.before == found.after


def test_the_best_epoch_is_taken_not_the_last() -> None:
    """Held out wants the first weight at 1.5, on its way from 1 to 3."""
    start = {"w": torch.tensor([1.0])}
    found = minimise(
        start,
        lambda tensors, _: (tensors["w"][0] - 3).square(),
        [0],
        lambda tensors: abs(float(tensors["w"][0]) - 1.5),
        Schedule(epochs=40, rates=(0.1,)),
    )
    assert 0 < found.epoch < 40 and abs(float(found.tensors["w"][0]) - 1.5) < 0.06


def test_the_result_has_the_dtype_that_is_stored_and_was_judged_in_it() -> None:
    start = {"w": START["w"].bfloat16()}
    found = minimise(start, loss, range(10), held_out, Schedule(epochs=20, rates=(0.1,)))
    assert found.tensors["w"].dtype == torch.bfloat16 and found.after == held_out(found.tensors)


def test_a_seed_gives_the_same_bits_and_another_seed_others() -> None:
    once, again, other = (
        minimise(START, loss, range(10), held_out, Schedule(epochs=3, rates=(0.1,), seed=seed)).tensors["w"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(once, again) and not torch.equal(once, other)


def test_of_several_rates_the_one_that_is_best_in_a_trial_is_taken() -> None:
    """The large one leaves the minimum in every step, the small one hardly moves."""
    rates = (1e3, 0.3, 1e-4)
    found = minimise(START, loss, range(10), held_out, Schedule(20, rates))
    alone = [minimise(START, loss, range(10), held_out, Schedule(20, (rate,))) for rate in rates]
    assert found.after == alone[1].after < min(alone[0].after, alone[2].after)
    assert torch.equal(found.tensors["w"], alone[1].tensors["w"])
