"""What only JAX models do: compiled functions, parameters on devices, functions in the place of modules."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import EmptyMapWarning, FusionCAM, GradCAM, ScoreCAM, UnconnectedError, adapt_model, testing
from fusioncam_core.models.inputs import prepare
from fusioncam_core.models.outputs import ClassScores

jax = pytest.importorskip("jax")
jnp = jax.numpy
quick = pytest.importorskip("fusioncam_jax.quick")
lanes = pytest.importorskip("fusioncam_jax.lanes")

IMAGES = np.random.default_rng(0).random((3, 12, 12, 3), dtype=np.float32)


def project(parameters: Any, images: Any) -> Any:
    """Three channels of images (B, H, W, 3) mixed, pooled and given to five classes, with a tap between."""
    from fusioncam_jax import tap

    features = tap("features", jax.nn.relu(images @ parameters["mix"]))
    return features.mean(axis=(1, 2)) @ parameters["head"]


def parameters() -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {"mix": jnp.asarray(random.normal(size=(3, 4)), jnp.float32), "head": jnp.asarray(np.eye(4, 5), jnp.float32)}


COMPILED: list[str] = []
"""What XLA has compiled in this process; not every JAX can take a listener back."""


def count_compilations(event: str, duration: float, **details: Any) -> None:
    if event.endswith("backend_compile_duration"):
        COMPILED.append(str(details.get("fun_name")))


jax.monitoring.register_event_duration_secs_listener(count_compilations)


@pytest.fixture
def compiled() -> list[str]:
    COMPILED.clear()
    return COMPILED


def fresh(code: str, **environment: str) -> str:
    """What a fresh interpreter prints, with the tests' folder on its path."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_plugin_and_tap_import_no_framework() -> None:
    code = (
        "import sys, fusioncam_jax, fusioncam_jax.plugin as plugin\n"
        "assert fusioncam_jax.tap('a', 3) == 3\n"
        "assert plugin.fusioncam_adapt_model(object(), {}) is None\n"
        "print([name for name in ('jax', 'flax', 'equinox') if name in sys.modules])"
    )
    assert fresh(code) == "[]"


def test_each_module_system_is_imported_alone() -> None:
    code = (
        "import sys, jax\n"
        "from fusioncam_core import GradCAM\n"
        "from test_jax import IMAGES, parameters, project\n"
        "GradCAM((project, parameters()))(IMAGES)\n"
        "print([name for name in ('flax', 'equinox') if name in sys.modules])"
    )
    assert fresh(code) == "[]"


class TestCompiled:
    def test_a_data_set_costs_one_compilation_an_input_shape(
        self, compiled: list[str], shapes: dict[str, Any], shapes_weights: dict[str, Any]
    ) -> None:
        from jax_models import tapped_function

        # With this bias 25 to 31 of the 48 channels are not constant: each image has masks of another number.
        weights = {**shapes_weights, "conv4.bias": shapes_weights["conv4.bias"] - 2}
        cam, images = FusionCAM(tapped_function(weights), batch_size=16), np.moveaxis(shapes["images"], 1, -1)
        evaluations = {cam(images[:1]).evaluations}
        assert compiled
        compiled.clear()
        evaluations |= {cam(images[index : index + 1]).evaluations for index in range(1, 8)}
        assert len(evaluations) > 3
        assert compiled == []
        cam(images[:1, :40])
        assert compiled, "another input shape"

    @pytest.mark.parametrize("beside", [1, 2])
    def test_the_model_is_traced_for_two_sizes_of_chunks(self, beside: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lanes, "_OF_PROCESS", [lanes.Lanes(beside) if beside > 1 else None])
        traced = []

        def apply(weights: Any, images: Any) -> Any:
            traced.append(images.shape[0])
            return project(weights, images)

        cam = FusionCAM((apply, parameters()), "features", batch_size=3)
        for _ in range(2):
            cam(IMAGES[:1])
        # One image lists the layers and captures, two are measured. Four channels are chunks of three, or of two.
        # The pass that captures is also that of the black image and of the maps that Fusion-CAM weighs.
        assert sorted(traced) == [1, 1, 2, 3 if beside == 1 else 2]

    def test_gradients_of_k_targets_are_one_pull_back(self) -> None:
        adapter = adapt_model((project, parameters()))
        targets = jnp.asarray([[0, 3, 1]] * 3)

        def gradients_of(images: Any) -> Any:
            return adapter.capture(images, ["features"], ClassScores(), targets).layers["features"].gradients

        # One product with the head forward, and one backward for all targets.
        assert str(jax.make_jaxpr(gradients_of)(IMAGES)).count("dot_general") == 3
        gradients = gradients_of(jnp.asarray(IMAGES))
        expected = np.zeros((3, 3, 12, 12, 4))
        for k, target in enumerate((0, 3, 1)):
            expected[k, ..., target] = 1 / 144
        np.testing.assert_allclose(gradients, expected, atol=1e-8)

    def test_the_trunk_is_not_differentiated(self) -> None:
        @jax.custom_vjp
        def trunk(images: Any) -> Any:
            return images * 2

        def refuse(*arguments: Any) -> Any:
            raise AssertionError("the trunk was differentiated")

        trunk.defvjp(refuse, refuse)
        cam = GradCAM((jax.jit(trunk), lambda features: features.mean(axis=(1, 2))))
        captured = cam.adapter.capture(jnp.asarray(IMAGES), ["features"], ClassScores(), jnp.asarray([[2]] * 3))
        gradients = captured.layers["features"].gradients
        np.testing.assert_allclose(gradients.sum(axis=(0, 2, 3)), [[0, 0, 1]] * 3, atol=1e-5)


class TestFunctions:
    def test_who_says_that_functions_are_jaxs(self) -> None:
        def features(images: Any) -> Any:
            return images

        def head(values: Any) -> Any:
            return values.mean(axis=(1, 2))

        bound = functools.partial(project, parameters())
        for pair in ((jax.jit(features), head), (features, jax.jit(head)), (features, functools.partial(bound))):
            assert GradCAM(pair).adapter.namespace.__name__ == "fusioncam_jax.namespace"
        said = {"framework": "jax"}
        assert GradCAM((features, head), backend_options=said).adapter.model_name == "(features, head)"
        with pytest.raises(
            TypeError, match=r'with backend_options=\{"framework": "jax"\} where nothing in them is JAX'
        ):
            GradCAM((features, head))
        with pytest.raises(TypeError, match="No plugin adapts"):
            GradCAM((jax.jit(features), head), backend_options={"framework": "tensorflow_or_so"})

    def test_bound_parameters_are_arguments(self) -> None:
        bound = functools.partial(project, parameters())
        adapter = adapt_model((lambda images: images, bound), {"framework": "jax"})
        assert [array.shape for array in jax.tree.leaves(adapter._network.parameters())] == [(4, 5), (3, 4)]

    def test_taps_in_compiled_functions_and_loops(self) -> None:
        from fusioncam_jax import tap

        @jax.jit
        def apply(weights: Any, images: Any) -> Any:
            def body(values: Any, _: None) -> tuple[Any, None]:
                return tap("step", values * weights), None

            return tap("end", jax.lax.scan(body, images, None, length=3)[0] + 1).mean(axis=(1, 2))

        model, images = (apply, jnp.asarray(2.0)), jnp.asarray(IMAGES)
        jax.block_until_ready(apply(jnp.asarray(2.0), images))  # what is cached must not pass the taps over
        cam = GradCAM(model, "step")
        assert [layer.name for layer in cam.layers(IMAGES)] == ["step", "end"]
        captured = cam.adapter.capture(images, ["step"], ClassScores(), jnp.asarray([[1]] * 3)).layers["step"]
        np.testing.assert_allclose(captured.activations, IMAGES * 8, rtol=1e-6)
        np.testing.assert_allclose(captured.gradients[0, ..., 1], np.full((3, 12, 12), 1 / 144), rtol=1e-6)
        replaced = cam.adapter.forward_with(images, "step", jnp.zeros_like(images))
        np.testing.assert_allclose(replaced, np.ones((3, 3)))
        first = cam.adapter.capture(images, ["step#0"], ClassScores(), jnp.asarray([[1]] * 3)).layers["step#0"]
        np.testing.assert_allclose(first.activations, IMAGES * 2, rtol=1e-6)
        np.testing.assert_allclose(first.gradients[0, ..., 1], np.full((3, 12, 12), 4 / 144), rtol=1e-6)

    def test_taps_inside_a_transformation(self) -> None:
        from fusioncam_jax import tap

        def apply(scale: Any, images: Any) -> Any:
            inside = jax.checkpoint(lambda values: tap("inside", values * scale))(images)
            return tap("around", inside).mean(axis=(1, 2))

        cam = GradCAM((apply, jnp.asarray(2.0)))
        assert [layer.name for layer in cam.layers(IMAGES)] == ["around"]
        assert cam(IMAGES).layer == "around"
        with pytest.raises(ValueError, match="'inside' of apply runs inside a transformation"):
            GradCAM((apply, jnp.asarray(2.0)), "inside")(IMAGES)

    def test_nothing_but_taps_inside_a_transformation(self) -> None:
        from fusioncam_jax import tap

        def apply(scale: Any, images: Any) -> Any:
            return jax.checkpoint(lambda values: tap("inside", values * scale))(images).mean(axis=(1, 2))

        with pytest.raises(ValueError, match="'inside' of apply runs inside a transformation"):
            GradCAM((apply, jnp.asarray(2.0)))(IMAGES)

    def test_channels_first(self) -> None:
        def apply(weights: Any, images: Any) -> Any:
            from fusioncam_jax import tap

            return tap("mixed", jnp.einsum("bchw,cd->bdhw", images, weights)).mean(axis=(2, 3))

        weights = jnp.asarray(np.random.default_rng(2).normal(size=(3, 7)), jnp.float32)
        explanation = GradCAM((apply, weights), backend_options={"channels": "first"})(
            np.moveaxis(IMAGES, -1, 1)[:, :, :, :8]
        )
        assert explanation.maps.shape == (3, 12, 8)
        assert explanation.image_channel_axis == 1
        with pytest.raises(ValueError, match="channels is 'first' or 'last': got 'middle'"):
            GradCAM((apply, weights), backend_options={"channels": "middle"})
        with pytest.raises(TypeError, match="JAX backend has no option 'chanels'; did you mean 'channels'"):
            GradCAM((apply, weights), backend_options={"chanels": "first"})

    def test_several_inputs_and_outputs(self) -> None:
        from fusioncam_jax import tap

        def apply(weights: Any, scale: Any, image: Any) -> Any:
            logits = tap("mixed", jax.nn.relu(image @ weights["mix"])).mean(axis=(1, 2)) * scale
            return {"auxiliary": logits * 0, "main": logits}

        model, scale = (apply, parameters()), np.array([[1.0], [2.0], [0.5]], np.float32)
        together = FusionCAM(model, masked_input="image", output="main")({"image": IMAGES, "scale": scale})
        by_position = FusionCAM(model, masked_input=1, output="main")((scale, IMAGES))
        np.testing.assert_allclose(by_position.maps, together.maps, atol=1e-6)
        alone = FusionCAM(model, masked_input="image", output="main")({"image": IMAGES[1:2], "scale": scale[1:2]})
        np.testing.assert_allclose(together.maps[1], alone.maps[0], atol=1e-6)

    def test_outputs_in_an_object(self) -> None:
        class Outputs:
            def __init__(self, logits: Any):
                self.logits = logits

        def apply(weights: Any, images: Any) -> Any:
            return Outputs(project(weights, images))

        expected = FusionCAM((project, parameters()))(IMAGES)
        np.testing.assert_array_equal(FusionCAM((apply, parameters()))(IMAGES).maps, expected.maps)

    def test_a_model_in_parts_is_the_same_one_by_its_parts(self) -> None:
        weights = parameters()
        first, second = (GradCAM((project, weights)) for _ in range(2))
        assert first == second
        assert hash(first) == hash(second)
        assert first != GradCAM((project, parameters())), "other arrays, though of the same values"

    def test_a_layer_is_a_name(self) -> None:
        with pytest.raises(TypeError, match="A layer of project is given by its name: got int"):
            GradCAM((project, parameters()), 3)

    def test_nothing_is_tapped(self) -> None:
        def apply(weights: Any, images: Any) -> Any:
            return images.mean(axis=(1, 2)) * weights

        with pytest.raises(ValueError, match="No layer of apply has an output with channels"):
            GradCAM((apply, jnp.asarray(1.0)))(IMAGES)


class TestArrays:
    def test_inputs_that_do_not_fit(self) -> None:
        cam = GradCAM((project, parameters()))
        with pytest.raises(ValueError, match=r"project cannot run on inputs of shape \(1, 12, 12, 2\) \(float32\): "):
            cam(IMAGES[..., :2])
        with pytest.raises(TypeError, match=r"a NumPy array or a JAX array: got a builtins\.str"):
            cam("coffee.png")

    def test_a_model_that_cannot_be_traced(self) -> None:
        def apply(weights: Any, images: Any) -> Any:
            return project(weights, images) if images.sum() > 0 else images

        with pytest.raises(ValueError, match=r"apply cannot run on inputs .* boolean conversion of traced array"):
            GradCAM((apply, parameters()))(IMAGES)

    def test_the_callers_array_may_change_afterwards(self) -> None:
        images = IMAGES.copy()
        explanation = GradCAM((project, parameters()))(images)
        images[:] = 0
        np.testing.assert_array_equal(explanation.images, IMAGES)

    def test_bfloat16_gives_float32_maps(self) -> None:
        half = jax.tree.map(lambda each: each.astype(jnp.bfloat16), parameters())
        explanation = FusionCAM((project, half))(IMAGES)
        assert explanation.images.dtype == jnp.bfloat16
        assert explanation.maps.dtype == jnp.float32
        expected = FusionCAM((project, parameters()))(IMAGES).numpy()
        # Eight bits of mantissa.
        np.testing.assert_allclose(explanation.numpy().scores, expected.scores, rtol=2**-6)
        assert explanation.numpy().images.dtype == np.float32

    def test_the_products_of_maps_are_exact_everywhere(self) -> None:
        from fusioncam_jax import namespace

        traced = str(jax.make_jaxpr(namespace.matmul)(jnp.ones((2, 3)), jnp.ones((3, 2))))
        assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in traced

    @pytest.mark.parametrize("cut", [jax.lax.stop_gradient, jnp.sign], ids=["stopped", "sign"])
    def test_cut_gradient_is_an_error(self, cut: Any) -> None:
        model = (jax.jit(lambda images: images), lambda values: cut(values).mean(axis=(1, 2)))
        with pytest.raises(
            UnconnectedError, match="do not depend on the layer 'features', or the model cuts the gradient"
        ):
            GradCAM(model)(IMAGES)

    def test_zero_gradient_warns_and_gives_zeros(self) -> None:
        model = (jax.jit(lambda images: images), lambda values: (values * 0).mean(axis=(1, 2)))
        with pytest.warns(EmptyMapWarning) as caught:
            explanation = GradCAM(model)(IMAGES)
        told = str(caught[0].message)
        assert "is zero everywhere for image 0; image 1; image 2" in told
        assert "A saturated softmax or sigmoid" in told
        assert float(jnp.max(explanation.maps)) == 0

    def test_integers_of_other_inputs_stay(self) -> None:
        adapter = adapt_model((project, parameters()))
        inputs = prepare(adapter, (IMAGES, np.array([1, 2, 3])), 0)
        assert inputs[1].dtype == jnp.int32


SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from fusioncam_core import FusionCAM
from jax_models import tapped_function

weights, golden = (dict(np.load(f"{folder}/{name}.npz")) for name in ("shapes_cnn", "shapes_golden"))
halves = NamedSharding(Mesh(jax.devices(), ("model",)), PartitionSpec(None, None, None, "model"))
apply, layers = tapped_function(weights)
for name in ("conv3", "conv4"):
    layers[name]["kernel"] = jax.device_put(layers[name]["kernel"], halves)
cam = FusionCAM((apply, layers), "conv4", contributions="signed")
explanation = cam(np.moveaxis(golden["images"], 1, -1), golden["target"])
assert len(explanation.maps.devices()) == 2
activations = cam.adapter.capture(explanation.images, ["conv4"], None, None).layers["conv4"].activations
assert activations.sharding.spec == PartitionSpec(None, None, None, "model"), activations.sharding
assert layers["conv4"]["kernel"].sharding == halves
print(np.abs(np.asarray(explanation.maps) - golden["fusion_cam"]).max() < 3e-5)
second = jax.tree.map(lambda each: jax.device_put(np.asarray(each), jax.devices()[1]), layers)
print(FusionCAM((apply, second))(explanation.numpy().images[:1]).maps.devices() == {jax.devices()[1]})
"""


def test_a_sharded_model_is_not_gathered_and_a_model_elsewhere_stays_there() -> None:
    folder = Path(testing.__file__).parent
    shown = fresh(f"folder = {str(folder)!r}\n{SHARDED}", XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert shown.split() == ["True", "True"]


@pytest.mark.parametrize(("method", "most"), [(GradCAM, 7), (FusionCAM, 16), (ScoreCAM, 9)])
@pytest.mark.parametrize(("budget", "beside", "chunk"), [(None, 1, 16), (None, 2, 16), (32, 1, 8), (32, 2, 4)])
def test_a_first_call_compiles_few_programs(
    method: Any,
    most: int,
    budget: int | None,
    beside: int,
    chunk: int,
    compiled: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pass that measures the layers, one that captures, one of chunks of masks; a dozen small programs besides."""
    monkeypatch.setattr(lanes, "_OF_PROCESS", [lanes.Lanes(beside) if beside > 1 else None])
    random = np.random.default_rng(0)
    image, traced = random.random((1, 13, 17, 3), dtype=np.float32), []
    values = {name: random.normal(size=size) for name, size in {"mix": (3, 40), "head": (40, 5)}.items()}
    values = {name: jnp.asarray(each, jnp.float32) for name, each in values.items()}

    def apply(weights: Any, images: Any) -> Any:
        traced.append(images.shape[0])
        return project(weights, images)

    explainer = method((apply, values), **({} if method is GradCAM else {"budget": budget}))
    compiled.clear()
    explainer(image)
    assert 4 <= len(compiled) <= most, compiled
    listed_and_captured, measured = [1, 1], [2]
    chunks = [] if method is GradCAM else [chunk]
    assert sorted(traced) == [*listed_and_captured, *measured, *chunks]
    compiled.clear()
    explainer(image)
    assert not compiled


def test_taking_images_apart_compiles_nothing(compiled: list[str]) -> None:
    """Each slice was the call of a program of its array's shape: half of the time of Grad-CAM over small images."""
    values, images = parameters(), np.random.default_rng(0).random((3, 11, 19, 3), dtype=np.float32)
    explanation = GradCAM((project, values))(images)
    compiled.clear()
    singles = list(explanation)
    assert not compiled
    joined = np.concatenate([np.asarray(each.maps) for each in singles])
    np.testing.assert_array_equal(joined, np.asarray(explanation.maps))


def test_images_are_taken_apart_where_they_are() -> None:
    from fusioncam_jax import rows

    device = jax.devices()[0]
    for count in (2, rows.MANY):
        for array in (jax.device_put(np.ones((count, 3)), device), jax.numpy.ones((count, 3))):
            apart = [row for (row,) in rows.rows_apart([array])]
            assert [row.committed for row in apart] == [array.committed] * count
            assert [row.devices() for row in apart] == [array.devices()] * count


def test_one_program_takes_many_images_apart(compiled: list[str]) -> None:
    """For each array of each image the host took as long as the network for a small image."""
    values, images = parameters(), np.random.default_rng(0).random((64, 11, 19, 3), dtype=np.float32)
    explanation = GradCAM((project, values))(images)
    compiled.clear()
    singles = list(explanation)
    assert len(compiled) == 1
    for name in ("maps", "images", "targets", "scores", "probabilities", "class_probabilities", "raw_range"):
        joined = np.concatenate([np.asarray(getattr(each, name)) for each in singles])
        np.testing.assert_array_equal(joined, np.asarray(getattr(explanation, name)))


def test_one_pass_serves_every_score_and_fewer_layers(compiled: list[str]) -> None:
    """What the forward pass leaves behind is pulled back by a program of each score; values are those of each alone."""
    values, targets = parameters(), jnp.asarray([[1]])
    inputs = jnp.asarray(IMAGES[:1])

    def two_taps(weights: Any, images: Any) -> Any:
        from fusioncam_jax import tap

        return project(weights, tap("early", 2 * images))

    together, alone = (adapt_model((two_taps, values)) for _ in range(2))
    assert not together.has_pass(inputs)
    both = together.capture(inputs, ["early", "features"], ClassScores(), targets)
    assert together.has_pass(inputs)
    assert not together.has_pass(jnp.asarray(IMAGES))
    for layer, score in (("features", ClassScores()), ("early#0", ClassScores()), ("features", None)):
        compiled.clear()
        found = together.capture(inputs, [layer], score, targets).layers[layer]
        assert len(compiled) <= (score is not None), "the backward pass alone"
        expected = alone.capture(inputs, [layer], score, targets).layers[layer]
        np.testing.assert_allclose(found.activations, expected.activations, rtol=1e-6)
        if score is not None:
            np.testing.assert_allclose(found.gradients, expected.gradients, rtol=1e-6)
            np.testing.assert_allclose(found.gradients, both.layers[layer.split("#")[0]].gradients, rtol=1e-6)
    compiled.clear()
    np.testing.assert_allclose(together.forward(inputs), two_taps(values, inputs), rtol=1e-6)


def test_a_pass_that_captures_many_layers_serves_no_other() -> None:
    from fusioncam_jax.passes import MOST, Pass, Passes

    names = tuple(f"layer{number}#0" for number in range(MOST + 1))
    places = {name: place for place, name in enumerate(names)}
    few, many = (Pass(names[:end], True, "structure", places) for end in (MOST, MOST + 1))
    passes, inputs = Passes(), jnp.zeros((1, 4))
    for each in (few, many):
        passes.add(inputs, each)
    assert passes.of(inputs, names[:1], False, "structure") is few
    assert passes.of(inputs, names, True, "structure") is many
    assert passes.of(inputs, names[:1], False, "another") is None
    assert passes.of(jnp.zeros((2, 4)), names[:1], False, "structure") is None


def doubled(array: jax.Array) -> jax.Array:
    return 2 * array


@pytest.mark.parametrize("options", [quick.SMALL, quick.ONCE, {"xla_of_another_version": 1}], ids=str)
def test_a_quick_program_runs_with_options_that_xla_has_and_without_others(options: Any, compiled: list[str]) -> None:
    """Inside of another program, for which JAX takes none, as well."""
    run, two = quick.quickly(doubled, options), jnp.asarray(2.0)
    assert float(run(two)) == 4
    compiled.clear()
    assert float(run(two)) == 4
    assert not compiled
    assert float(jax.jit(lambda array: run(array) + 1)(2.0)) == 5
    assert float(jax.grad(run)(3.0)) == 2


def test_what_a_quick_program_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(function: Any, **options: Any) -> Any:
        def run(*arguments: Any) -> Any:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")

        return run if options else function

    monkeypatch.setattr(jax, "jit", full)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE"):
        quick.quickly(doubled, quick.SMALL)(jnp.asarray(2.0))
