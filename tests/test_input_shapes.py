"""Signals, images, volumes and rows of tokens: every method finds the evidence that a small network learnt to find."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from fusioncam_core import EXPLAINERS, FusionCAM, FusionCamWarning, GradCAM, ScoreCAM
from fusioncam_core.arrays.words import resize

torch = pytest.importorskip("torch")

from synthetic import PROBLEMS, Examples, WithContext  # noqa: E402 - PyTorch's

COUNT = 12
GRID = (8, 4)
"""Of the patches of 3 x 6 in 24 x 24, which is not to be inferred."""

OPTIONS: dict[str, Any] = {"rise": {"masks": 1000}, "ss-cam": {"samples": 10}}
"""Fewer random masks than by default, which is enough for such small inputs."""

NOT_NEGATIVE = ("grad-cam++", "smooth-grad-cam++", "xgrad-cam", "ablation-cam", "eigen-cam")
"""Methods made for activations behind a ReLU; where half of the evidence is below zero, as in normalised tokens, they
leave it out (only positive gradients count), divide by sums near zero, or take zero for nothing."""


class Learnt(NamedTuple):
    """A trained network, examples with evidence in them, and what its explainers need to be told."""

    network: Any
    examples: Examples
    options: dict[str, Any]


@pytest.fixture(scope="session")
def learnt() -> dict[str, Learnt]:
    """Filled by `problem`, as far as the networks are asked for."""
    return {}


@pytest.fixture(params=list(PROBLEMS))
def problem(request: pytest.FixtureRequest, learnt: dict[str, Learnt]) -> Learnt:
    return train(request.param, learnt)


def train(name: str, learnt: dict[str, Learnt]) -> Learnt:
    if name not in learnt:
        options = {"task": "multilabel", "batch_size": 64, **({"reshape": GRID} if name == "oblong tokens" else {})}
        learnt[name] = Learnt(PROBLEMS[name].train(), PROBLEMS[name].examples(COUNT, seed=99), options)
    return learnt[name]


def evidence_and_rest(maps: np.ndarray, examples: Examples) -> tuple[float, float]:
    """The mean of the maps on the evidence and beside it, the same weight for each example."""
    pairs = list(zip(maps, examples.evidence, strict=True))
    return float(np.mean([each[here].mean() for each, here in pairs])), float(
        np.mean([each[~here].mean() for each, here in pairs])
    )


def test_the_networks_have_learnt(problem: Learnt) -> None:
    with torch.no_grad():
        found = problem.network(torch.from_numpy(problem.examples.inputs)).numpy() > 0
    np.testing.assert_array_equal(found, problem.examples.patterns[:, None] == [0, 1])


@pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # single maps may be empty
@pytest.mark.parametrize("method", list(EXPLAINERS))
def test_maps_lie_on_the_evidence(problem: Learnt, method: str) -> None:
    network, examples, options = problem
    tokens = hasattr(network, "tokens")
    layer = "tokens" if tokens and method in NOT_NEGATIVE else None
    cam = EXPLAINERS[method](network, layer, **options, **OPTIONS.get(method, {}))
    explanation = cam(examples.inputs, examples.patterns).numpy()
    assert explanation.maps.shape == examples.evidence.shape
    assert np.isfinite(explanation.maps).all()
    assert explanation.maps.min() >= 0
    assert explanation.maps.max() == pytest.approx(1, abs=1e-6)
    if tokens and method == "eigen-cam":
        return  # the principal component, of whatever class: here often that of the many tokens of the background
    on, beside = evidence_and_rest(explanation.maps, examples)
    assert on > beside


@pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # single maps may be empty
class TestTokens:
    """The default layer of a network whose head reads the class token."""

    @pytest.fixture
    def square(self, learnt: dict[str, Learnt]) -> Learnt:
        return train("tokens", learnt)

    @pytest.fixture
    def oblong(self, learnt: dict[str, Learnt]) -> Learnt:
        return train("oblong tokens", learnt)

    def test_it_is_what_the_last_attention_reads(self, square: Learnt) -> None:
        cam = GradCAM(square.network, **square.options)
        explanation = cam(square.examples.inputs, square.examples.patterns)
        assert explanation.layer == "block.norm1"
        assert [layer.name for layer in cam.layers(square.examples.inputs) if layer.default] == ["block.norm1"]
        assert explanation.evaluations == COUNT

    def test_it_is_found_once(self, square: Learnt) -> None:
        runs: list[int] = []
        handle = square.network.register_forward_hook(lambda _, inputs, __: runs.append(len(inputs[0])))
        cam = GradCAM(square.network, **square.options)
        for _ in range(2):
            cam(square.examples.inputs, square.examples.patterns)
        handle.remove()
        assert runs[-2:] == [COUNT, COUNT]
        assert len(runs[:-2]) <= 8, (
            "what is measured takes at most eight passes, and none if another test has been here"
        )
        assert max(runs[:-2], default=1) <= 2

    def test_the_last_layer_would_give_nothing(self, square: Learnt) -> None:
        with pytest.warns(FusionCamWarning, match="zero everywhere"):
            explanation = GradCAM(square.network, "norm", **square.options)(square.examples.inputs)
        assert explanation.maps.abs().max() == 0

    def test_all_explainers_take_it(self, square: Learnt) -> None:
        for method in (ScoreCAM, FusionCAM):
            assert method(square.network, **square.options)(square.examples.inputs[:1], 0).layer == "block.norm1"
        whole = FusionCAM(square.network, gradient=GradCAM(square.network, **square.options), **square.options)
        named = FusionCAM(square.network, gradient="grad-cam", **square.options)
        maps = [cam(square.examples.inputs[:2], [0, 1]).maps for cam in (whole, named)]
        torch.testing.assert_close(*maps, rtol=0, atol=1e-6)

    def test_frozen_and_under_no_grad(self, square: Learnt) -> None:
        network = PROBLEMS["tokens"]._replace(steps=1).train().requires_grad_(False)
        with torch.no_grad():
            assert GradCAM(network, **square.options)(square.examples.inputs, 0).layer == "block.norm1"

    def test_target_functions_decide_too(self, square: Learnt) -> None:
        cam = GradCAM(square.network, **square.options)
        explanation = cam(square.examples.inputs[:2], lambda logits: logits[:, 0] - logits[:, 1])
        assert explanation.layer == "block.norm1"

    def test_where_nothing_matters_the_last_layer_stays(self, square: Learnt) -> None:
        network = PROBLEMS["tokens"]._replace(steps=1).train()
        torch.nn.init.zeros_(network.head.weight)
        with pytest.warns(FusionCamWarning):
            assert GradCAM(network, **square.options)(square.examples.inputs[:1], 0).layer == "norm"

    def test_pooled_patches_keep_the_last_layer(self, square: Learnt) -> None:
        class Pooled(type(square.network)):  # type: ignore[misc]
            def forward(self, images: Any) -> Any:
                return self.head(self.norm(self.block(self.tokens(images) + self.positions))[:, 1:].mean(dim=1))

        network = Pooled((24, 24), (4, 4)).eval()
        assert GradCAM(network, **square.options)(square.examples.inputs[:1], 0).layer == "norm"

    def test_a_norm_that_nothing_reads_is_passed_over(self, square: Learnt) -> None:
        class Auxiliary(type(square.network)):  # type: ignore[misc]
            def forward(self, images: Any) -> Any:
                logits = super().forward(images)
                self.block.norm2(self.tokens(images))
                return logits

        network = Auxiliary((24, 24), (4, 4)).eval()
        assert GradCAM(network, **square.options)(square.examples.inputs[:1], 0).layer == "block.norm1"

    def test_a_grid_says_what_the_rows_are(self, oblong: Learnt) -> None:
        explanation = GradCAM(oblong.network, **oblong.options)(oblong.examples.inputs, oblong.examples.patterns)
        assert explanation.layer == "block.norm1"

    def test_a_grid_is_measured(self, oblong: Learnt) -> None:
        given = GradCAM(oblong.network, **oblong.options)(oblong.examples.inputs, oblong.examples.patterns)
        without = {**oblong.options, "reshape": None}
        for layer in (None, "block.norm1"):
            explanation = GradCAM(oblong.network, layer, **without)(oblong.examples.inputs, oblong.examples.patterns)
            assert explanation.layer == "block.norm1"
            torch.testing.assert_close(explanation.maps, given.maps)

    def test_the_grid_lies_as_the_patches_do(self, oblong: Learnt) -> None:
        image = torch.zeros(1, 1, 24, 24)
        image[..., 9:12, 6:12] = 1  # the patch in row 3 and column 1, of 8 rows and 4 columns
        network = PROBLEMS["oblong tokens"]._replace(steps=1).train()
        torch.nn.init.zeros_(network.tokens.patches[0].bias)
        torch.nn.init.zeros_(network.tokens.patches[2].bias)
        network.tokens.patches[0].weight.data[..., [0, 2], :] = 0  # look at one pixel at a time
        network.tokens.patches[0].weight.data[..., [0, 2]] = 0
        network.tokens.patches[2].weight.data.abs_()
        maps = EXPLAINERS["eigen-cam"](network, "tokens", **oblong.options)(image, 0).maps[0]
        expected = np.zeros(GRID, dtype=np.float32)
        expected[3, 1] = 1
        expected = resize(expected, (24, 24))
        np.testing.assert_allclose(maps, expected / expected.max(), atol=1e-5)


def test_several_inputs(learnt: dict[str, Learnt]) -> None:
    network, examples, options = train("image", learnt)
    model = WithContext(network).eval()
    nothing = np.zeros((COUNT, 2), dtype=np.float32)
    for method in (GradCAM, ScoreCAM, FusionCAM):
        expected = method(network, **options)(examples.inputs, examples.patterns).maps
        by_name = method(model, masked_input="image", **options)
        maps = by_name({"image": examples.inputs, "context": nothing}, examples.patterns).maps
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)
        by_position = method(model, masked_input=1, **options)
        maps = by_position((nothing, examples.inputs), examples.patterns).maps
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)
    # What is added to the logits of an image changes neither its gradients nor the order of its masks' scores.
    context = np.linspace(-3, 3, 2 * COUNT, dtype=np.float32).reshape(COUNT, 2)
    for method in (GradCAM, ScoreCAM):
        expected = method(network, **options)(examples.inputs, examples.patterns).maps
        maps = method(model, masked_input=1, **options)((context, examples.inputs), examples.patterns).maps
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-4)
