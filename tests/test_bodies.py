"""What moves stands upright at the depth of where it stands, whatever an estimate makes of it."""

import torch

from lyra.views.bodies import fill_outlines, find_shadows, give_bodies, label_parts

TIME, HEIGHT, WIDTH = 7, 48, 64


def ground() -> torch.Tensor:
    """A floor seen from above it, up to a wall."""
    rows = torch.arange(HEIGHT).float() + 0.5
    floor = 12.0 / (rows - 20).clamp(min=1.5)
    return floor.clamp(max=4.0)[:, None].expand(HEIGHT, WIDTH).clone()


def passing(feet: int = 40) -> torch.Tensor:
    """Somebody who walks to the right."""
    where = torch.zeros(TIME, HEIGHT, WIDTH, dtype=torch.bool)
    for index in range(TIME):
        where[index, 12:feet, 8 + 6 * index : 16 + 6 * index] = True
    return where


def test_a_thing_stands_where_its_feet_are_though_the_estimate_leans_back():
    behind = ground().expand(TIME, -1, -1)
    moving = passing()
    depth = give_bodies(behind * 0.98, behind, moving, torch.zeros_like(moving))
    body = depth[moving]
    stands = float(ground()[39, 0])
    assert ((body / stands).log().abs() < 0.1).all()
    assert torch.equal(depth[~moving], (behind * 0.98)[~moving])
    # Upright: head and feet at nearly one depth, where the ground behind goes from 0.6 to 4.
    assert body.max() / body.min() < 1.2


def test_nothing_is_behind_what_it_hides():
    behind = ground().expand(TIME, -1, -1)
    moving = passing()
    depth = give_bodies(behind * 3, behind, moving, torch.zeros_like(moving))
    assert bool((depth[moving] <= behind[moving]).all())


def test_whose_feet_are_out_of_sight_goes_on_as_before():
    behind = ground().expand(TIME, -1, -1).clone()
    moving = passing()
    moving[4:] = False
    for index in range(4, TIME):
        moving[index, 14:HEIGHT, 8 + 6 * index : 16 + 6 * index] = True
    estimate = behind.clone()
    estimate[moving] = 1.0
    depth = give_bodies(estimate, behind, moving, torch.zeros_like(moving))
    # The estimate is 1 at all times, and the feet say where that is.
    before, after = depth[2][moving[2]].median(), depth[6][moving[6]].median()
    assert abs(float((after / before).log())) < 0.05


def test_depth_of_a_track_does_not_jump_where_one_picture_is_wrong():
    behind = ground().expand(TIME, -1, -1)
    moving = passing()
    moving[3, 36:40] = False  # its feet are missed once
    depth = give_bodies(behind, behind, moving, torch.zeros_like(moving))
    medians = torch.stack([depth[i][moving[i]].median() for i in range(TIME)])
    assert float(medians.log().diff().abs().max()) < 0.05


def test_what_an_outline_encloses_moves_too():
    outline = passing()
    inside = outline.clone()
    outline[:, 15:37] &= ~torch.roll(outline, 3, 2)[:, 15:37] | ~torch.roll(outline, -3, 2)[:, 15:37]
    assert bool((fill_outlines(outline) & inside).sum() >= inside.sum() - 1)


def test_a_shadow_is_the_backdrop_darker_and_a_thing_is_not():
    generator = torch.Generator().manual_seed(0)
    backdrop = (0.4 + 0.4 * torch.rand(3, HEIGHT, WIDTH, generator=generator)).expand(TIME, -1, -1, -1)
    images, moving = backdrop.clone(), torch.zeros(TIME, HEIGHT, WIDTH, dtype=torch.bool)
    images[:, :, 30:42, 10:30] *= 0.6
    images[:, :, 5:20, 40:55] = torch.tensor([0.1, 0.2, 0.9])[:, None, None]
    moving[:, 30:42, 10:30] = moving[:, 5:20, 40:55] = True
    raised = torch.zeros(TIME, HEIGHT, WIDTH)
    shadows = find_shadows(images, backdrop, moving, raised)
    assert shadows[:, 32:40, 12:28].float().mean() > 0.95
    assert not bool(shadows[:, :25].any())
    assert not bool(find_shadows(images, backdrop, moving, raised + 0.3).any())


def test_parts_are_told_apart():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[0, :3] = mask[2:5, 5] = mask[1, 3] = True
    labels = label_parts(mask)
    assert len(labels.unique()) == 3 and labels[0, 0] == labels[1, 3] != labels[3, 5]
    assert bool((labels[~mask] == 0).all())
