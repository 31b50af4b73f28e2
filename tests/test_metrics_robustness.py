from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core.metrics import infidelity, max_sensitivity
from libraries import Library, assert_close, framework

GENERATOR = np.random.default_rng(0)
MAPS = GENERATOR.normal(size=(2, 3, 4, 5)).astype(np.float32)
PERTURBATIONS = GENERATOR.normal(size=(6, 2, 3, 4, 5)).astype(np.float32)
CHANGES = GENERATOR.normal(size=(6, 2, 3)).astype(np.float32)


def arrays(library: Library, *values: Any) -> list[Any]:
    return [library.asarray(np.array(each, dtype=np.float32)) for each in values]


class TestInfidelity:
    def test_by_hand(self, library: Library) -> None:
        maps, perturbations, changes = arrays(library, [[[1, 2]]], [[[[1, 0]]], [[[1, 1]]]], [[2], [1]])
        # 1 and 3 were expected, 2 and 1 came: (1 + 4) / 2.
        assert_close(library.compile(infidelity)(maps, perturbations, changes), [2.5], maps)
        # The best factor is (2 + 3) / (1 + 9): 0.5 and 1.5, off by 1.5 and 0.5.
        function = library.compile(lambda *values: infidelity(*values, normalise=True))
        assert_close(function(maps, perturbations, changes), [1.25], maps)

    def test_a_faithful_map(self, eager: Library) -> None:
        maps, perturbations = arrays(eager, MAPS, PERTURBATIONS)
        changes = eager.asarray((PERTURBATIONS * MAPS).sum(axis=(-2, -1)))
        assert_close(infidelity(maps, perturbations, changes), np.zeros((2, 3)), maps, atol=1e-9)

    @pytest.mark.parametrize("scale", [1e-24, 3, 1e12])
    def test_normalised_the_unit_does_not_matter(self, library: Library, scale: float) -> None:
        maps, perturbations, changes = arrays(library, MAPS * scale, PERTURBATIONS, CHANGES)
        expected = infidelity(*(each.astype(np.float64) for each in (MAPS, PERTURBATIONS, CHANGES)), normalise=True)
        function = library.compile(lambda *values: infidelity(*values, normalise=True))
        assert_close(function(maps, perturbations, changes), expected, maps, atol=1e-5)

    def test_normalised_zeros_expect_nothing(self, eager: Library) -> None:
        maps, perturbations, changes = arrays(eager, [[[0, 0]]], [[[[1, 0]]], [[[1, 1]]]], [[2], [1]])
        assert_close(infidelity(maps, perturbations, changes, normalise=True), [2.5], maps)

    @pytest.mark.parametrize("normalise", [False, True])
    def test_nan_stays_with_its_map(self, library: Library, normalise: bool) -> None:
        maps, perturbations, changes = MAPS.copy(), PERTURBATIONS.copy(), CHANGES.copy()
        maps[0, 0, 1, 1], perturbations[2, 0, 1, 3, 4], changes[5, 0, 2] = np.nan, np.inf, -np.inf
        expected = infidelity(MAPS, PERTURBATIONS, CHANGES, normalise=normalise)
        expected[0] = np.nan
        like, *others = arrays(library, maps, perturbations, changes)
        function = library.compile(lambda *values: infidelity(*values, normalise=normalise))
        assert_close(function(like, *others), expected, like, atol=1e-5)

    @pytest.mark.parametrize("normalise", [False, True])
    def test_equals_captum(self, normalise: bool) -> None:
        torch, metrics = framework("torch"), framework("captum.metrics")
        maps, images = torch.from_numpy(MAPS[0, :, None]), torch.from_numpy(MAPS[1, :, None])
        # captum asks for the perturbations of each image side by side.
        perturbations = torch.from_numpy(PERTURBATIONS[:, 0])

        def score(batch: Any) -> Any:
            return torch.sin(batch).sum(dim=(1, 2, 3))

        def perturb(inputs: Any) -> tuple[Any, Any]:
            noise = perturbations.transpose(0, 1).reshape(inputs.shape)
            return noise, inputs - noise

        expected = metrics.infidelity(score, perturb, images, maps, n_perturb_samples=6, normalize=normalise)
        changes = torch.stack([score(images) - score(images - each[:, None]) for each in perturbations])
        actual = infidelity(maps[:, 0], perturbations, changes, normalise=normalise)
        assert_close(actual, expected.numpy(), maps, rtol=1e-4)

    def test_colours_count_as_their_sum(self) -> None:
        torch, metrics = framework("torch"), framework("captum.metrics")
        images, maps = torch.from_numpy(PERTURBATIONS[0]), torch.from_numpy(MAPS[:, 0])
        noise = torch.from_numpy(PERTURBATIONS[1:])

        def score(batch: Any) -> Any:
            return torch.sin(batch).sum(dim=(1, 2, 3))

        def perturb(inputs: Any) -> tuple[Any, Any]:
            taken = noise.transpose(0, 1).reshape(inputs.shape)
            return taken, inputs - taken

        spread = maps[:, None].expand(images.shape)
        expected = metrics.infidelity(score, perturb, images, spread, n_perturb_samples=5)
        changes = torch.stack([score(images) - score(images - each) for each in noise])
        assert_close(infidelity(maps, noise.sum(dim=2), changes), expected.numpy(), maps, rtol=1e-4)

    def test_wrong(self) -> None:
        maps = np.zeros((2, 4, 5))
        with pytest.raises(ValueError, match=r"perturbations have shape \(2, 4, 5\) and the maps \(2, 4, 5\)"):
            infidelity(maps, maps, np.zeros(2))
        with pytest.raises(ValueError, match="for one or more perturbations"):
            infidelity(maps, np.zeros((0, 2, 4, 5)), np.zeros((0, 2)))
        with pytest.raises(ValueError, match=r"changes have shape \(2, 3\), and \(3, 2\) was expected"):
            infidelity(maps, np.zeros((3, 2, 4, 5)), np.zeros((2, 3)))
        with pytest.raises(TypeError, match="changes must be of a floating-point dtype"):
            infidelity(maps, np.zeros((3, 2, 4, 5)), np.zeros((3, 2), dtype=int))


class TestMaxSensitivity:
    def test_by_hand(self, library: Library) -> None:
        maps, perturbed = arrays(library, [[[3, 4]]], [[[[3, 4]]], [[[0, 0]]], [[[3, 14]]]])
        # Distances of 0, 5 and 10 from a map of norm 5.
        assert_close(library.compile(max_sensitivity)(maps, perturbed), [2], maps)

    @pytest.mark.parametrize("scale", [1e-24, 1, 1e24])
    def test_equals_numpy(self, library: Library, scale: float) -> None:
        distances = np.linalg.norm((PERTURBATIONS - MAPS).reshape(6, 2, 3, -1), axis=-1)
        expected = distances.max(axis=0) / np.linalg.norm(MAPS.reshape(2, 3, -1), axis=-1)
        maps, perturbed = arrays(library, MAPS * scale, PERTURBATIONS * scale)
        assert_close(library.compile(max_sensitivity)(maps, perturbed), expected, maps, atol=1e-5)

    def test_zeros_that_stay_did_not_move(self, library: Library) -> None:
        maps, perturbed = arrays(library, np.zeros((2, 1, 2)), [[[[0, 0]], [[0, 0]]], [[[0, 0]], [[0, 1]]]])
        assert_close(library.compile(max_sensitivity)(maps, perturbed), [0, np.nan], maps)

    def test_undefined_for_that_map_alone(self, library: Library) -> None:
        maps, perturbed = MAPS[0].copy(), PERTURBATIONS[:, 0].copy()
        maps[0], perturbed[3, 1, 2, 2] = 0, np.nan
        expected = [np.nan, np.nan, float(max_sensitivity(MAPS[0, 2], PERTURBATIONS[:, 0, 2]))]
        like, moved = arrays(library, maps, perturbed)
        assert_close(library.compile(max_sensitivity)(like, moved), expected, like, atol=1e-5)

    def test_equals_captum(self) -> None:
        torch, metrics = framework("torch"), framework("captum.metrics")
        images = torch.from_numpy(MAPS[0, :, None])
        noise = torch.from_numpy(PERTURBATIONS[:, 0])

        def perturb(inputs: Any) -> Any:
            return inputs + noise.transpose(0, 1).reshape(inputs.shape)

        def explain(inputs: Any) -> Any:
            # captum passes the plain input as a tuple, and expects one back.
            return (explain(inputs[0]),) if isinstance(inputs, tuple) else torch.sin(inputs) ** 2

        expected = metrics.sensitivity_max(explain, images, perturb, n_perturb_samples=6)
        perturbed = torch.stack([explain(images[:, 0] + each) for each in noise])
        assert_close(max_sensitivity(explain(images[:, 0]), perturbed), expected.numpy(), images, rtol=1e-5)

    def test_wrong(self) -> None:
        maps = np.zeros((2, 4, 5))
        with pytest.raises(ValueError, match=r"perturbed have shape \(3, 2, 4, 6\) and the maps \(2, 4, 5\)"):
            max_sensitivity(maps, np.zeros((3, 2, 4, 6)))
        with pytest.raises(TypeError, match="perturbed must be of a floating-point dtype"):
            max_sensitivity(maps, np.zeros((3, 2, 4, 5), dtype=int))
