"""Shifted and mirrored images."""

import numpy as np
import pytest

from mpitrain.data import augment
from mpitrain.data.share import parts
from mpitrain.job.errors import UserError

BOTH = augment.parse("crop,flip")


def pictures(count, shape=(3, 32, 24)):
    return np.random.default_rng(0).integers(1, 256, (count, *shape), np.uint8)


def rows(drawn):
    return np.stack([drawn.down, drawn.right, drawn.flip])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_draws_do_not_depend_on_the_number_of_ranks(size):
    images, positions = pictures(10), np.arange(10)
    whole = augment.augment(images, augment.draws(positions, 4, 1, images.shape[1:]), BOTH)
    for part in parts(10, size):
        drawn = augment.draws(positions[part], 4, 1, images.shape[1:])
        assert np.array_equal(augment.augment(images[part], drawn, BOTH), whole[part])


def test_steps_seeds_and_places_draw_differently():
    draws = [
        rows(augment.draws(np.arange(64), step, seed, (3, 64, 64)))
        for step in (0, 1)
        for seed in (0, 1)
    ]
    assert len({drawn.tobytes() for drawn in draws}) == 4
    assert len({tuple(column) for column in draws[0].T}) > 32


def test_draws_reach_an_eighth_of_the_image_both_ways_and_flip_half():
    drawn = augment.draws(np.arange(4000), 0, 0, (3, 32, 24))
    assert set(drawn.down) == set(range(-4, 5))
    assert set(drawn.right) == set(range(-3, 4))
    assert 0.45 < drawn.flip.mean() < 0.55
    assert abs(np.corrcoef(drawn.down, drawn.right)[0, 1]) < 0.1


def test_an_image_moves_as_drawn_and_zeros_move_in():
    images = pictures(2, (1, 4, 4))
    drawn = augment.Draws(np.array([1, -1]), np.array([-2, 0]), np.array([False, False]))
    moved = augment.augment(images, drawn, frozenset({"crop"}))
    assert np.array_equal(moved[0, 0, 1:, :2], images[0, 0, :3, 2:])
    assert not moved[0, 0, 0].any() and not moved[0, 0, :, 2:].any()
    assert np.array_equal(moved[1, 0, :3], images[1, 0, 1:])
    assert not moved[1, 0, 3].any()


def test_a_flip_is_its_own_inverse():
    images = pictures(3)
    drawn = augment.Draws(
        np.zeros(3, np.int64), np.zeros(3, np.int64), np.array([True, False, True])
    )
    once = augment.augment(images, drawn, BOTH)
    assert np.array_equal(once[0], images[0, :, :, ::-1]) and np.array_equal(once[1], images[1])
    assert np.array_equal(augment.augment(once, drawn, BOTH), images)


def test_without_a_way_images_stay_and_the_input_is_never_changed():
    images = pictures(5)
    before = images.copy()
    drawn = augment.draws(np.arange(5), 0, 0, images.shape[1:])
    assert np.array_equal(augment.augment(images, drawn, frozenset()), images)
    augment.augment(images, drawn, BOTH)
    assert np.array_equal(images, before)


def test_float_images_and_empty_parts_work():
    images = pictures(0).astype(np.float32)
    drawn = augment.draws(np.arange(0), 0, 0, images.shape[1:])
    assert augment.augment(images, drawn, BOTH).shape == images.shape
    assert (
        augment.augment(
            pictures(1).astype(np.float32), augment.draws([0], 0, 0, (3, 32, 24)), BOTH
        ).dtype
        == "float32"
    )


def test_unknown_ways_are_an_error():
    assert augment.parse("") == frozenset() and augment.parse(" flip , crop") == BOTH
    with pytest.raises(UserError, match="augmentation 'rotate'; expected crop, flip"):
        augment.parse("flip,rotate")
    assert augment.parse("resized,jitter") == {"resized", "jitter"}
    with pytest.raises(UserError, match="augmentation crop and resized; expected one of them"):
        augment.parse("resized,flip,crop")
