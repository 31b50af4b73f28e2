"""Models as people bring them to the JAX backend: stacked, wrapped, mapped, in training mode, of few bits.

Every map is compared with a Grad-CAM written here by hand, of the same layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from fusioncam_core import GradCAM, LayerCAM, ScoreCAM, adapt_model
from fusioncam_core.models.outputs import ClassScores
from fusioncam_core.results.terminal import layer_table

jax = pytest.importorskip("jax")
eqx = pytest.importorskip("equinox")
flax = pytest.importorskip("flax")
jnp = jax.numpy

import flax.linen as nn  # noqa: E402 - only where it is installed
import optax  # noqa: E402
from flax import nnx  # noqa: E402
from flax.training.train_state import TrainState  # noqa: E402

from fusioncam_jax import tap  # noqa: E402

IMAGES = np.random.default_rng(0).random((2, 12, 10, 3), dtype=np.float32)
FIRST = np.moveaxis(IMAGES, -1, 1)
KEYS = jax.random.split(jax.random.key(0), 8)
CLASS = 1


def by_hand(activations: Any, outputs: Callable[[Any], Any], channels: int = -1, size: Any = (12, 10)) -> Any:
    """Grad-CAM maps (B, *size) of class 1 from activations (B, ...) and the rest of the network."""
    gradients = jax.jit(jax.grad(lambda values: outputs(values)[:, CLASS].sum()))(jnp.asarray(activations))
    activations, gradients = (
        np.moveaxis(np.asarray(each, np.float64), channels, -1) for each in (activations, gradients)
    )
    space = tuple(range(1, activations.ndim - 1))
    maps = np.maximum((activations * gradients.mean(space, keepdims=True)).sum(-1), 0)
    maps = np.asarray(jax.image.resize(jnp.asarray(maps), (len(maps), *size), "linear", antialias=False))
    low, high = maps.min(space, keepdims=True), maps.max(space, keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)


def maps_of(model: Any, layer: Any = None, images: Any = IMAGES, **options: Any) -> Any:
    return GradCAM(model, layer, **options)(images, targets=CLASS).maps


def initial(module: nn.Module, key: Any = KEYS[0], **arguments: Any) -> Any:
    """The variables of a Linen module; compiled, as running it operation by operation compiles each."""
    return jax.jit(functools.partial(module.init, **arguments))(key, IMAGES)


def names(model: Any, images: Any = IMAGES) -> list[str]:
    return [layer.name for layer in GradCAM(model).layers(images)]


class Linen(nn.Module):
    """Running averages and dropout, and a switch that must be given."""

    def setup(self) -> None:
        self.conv = nn.Conv(4, (3, 3))
        self.norm = nn.BatchNorm()
        self.last = nn.Conv(4, (3, 3))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Dense(3)

    def until_last(self, images: Any, train: bool) -> Any:
        return self.last(nn.relu(self.norm(self.conv(images), use_running_average=not train)))

    def from_last(self, values: Any, train: bool = False) -> Any:
        return self.head(self.dropout(nn.relu(values), deterministic=not train).mean(axis=(1, 2)))

    def __call__(self, images: Any, train: bool) -> Any:
        return self.from_last(self.until_last(images, train), train)


class State(TrainState):
    batch_stats: Any = None


LINEN = Linen()
VARIABLES = initial(LINEN, train=False)
VARIABLES["batch_stats"] = jax.tree.map(lambda each: each + jnp.linspace(0.1, 0.4, 4), VARIABLES["batch_stats"])


def train_state(**changes: Any) -> State:
    given = {"apply_fn": LINEN.apply, **VARIABLES, "tx": optax.sgd(0.1), **changes}
    return State.create(**given)


@pytest.fixture(scope="module")
def linen_maps() -> Any:
    activations = LINEN.apply(VARIABLES, IMAGES, train=False, method=Linen.until_last)
    return by_hand(activations, lambda values: LINEN.apply(VARIABLES, values, method=Linen.from_last))


LINEN_GIVEN = {
    "pair": lambda: (LINEN, VARIABLES),
    "frozen": lambda: (LINEN, flax.core.freeze(VARIABLES)),
    "numpy": lambda: (LINEN, jax.tree.map(np.asarray, VARIABLES)),
    "training state": train_state,
    "training state of all variables": lambda: train_state(params=VARIABLES),
    "compiled apply in a training state": lambda: train_state(
        apply_fn=jax.jit(LINEN.apply, static_argnames=("train", "mutable"))
    ),
    "module and training state": lambda: (LINEN, train_state()),
    "apply and variables": lambda: (train_state().apply_fn, VARIABLES),
    "partial apply": lambda: (functools.partial(LINEN.apply, train=False), VARIABLES),
    "partial apply in training": lambda: (
        functools.partial(LINEN.apply, train=True, mutable=["batch_stats"], rngs={"dropout": KEYS[0]}),
        VARIABLES,
    ),
    "method": lambda: (functools.partial(LINEN.apply, method="__call__", train=False), VARIABLES),
    "variables bound": lambda: functools.partial(LINEN.apply, VARIABLES),
    "compiled": lambda: jax.jit(functools.partial(LINEN.apply, VARIABLES, train=False)),
    "bound module": lambda: LINEN.bind(VARIABLES),
}


@pytest.mark.parametrize("given", LINEN_GIVEN)
def test_linen_as_people_give_it(given: str, linen_maps: Any) -> None:
    np.testing.assert_allclose(maps_of(LINEN_GIVEN[given](), "last"), linen_maps, atol=1e-5)


class Nnx(nnx.Module):
    """The same as the one of Linen; the block in it is in training unless somebody says otherwise."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.block = NnxBlock(rngs)
        self.last = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, images: Any) -> Any:
        return self.head(nnx.relu(self.last(self.block(images))).mean(axis=(1, 2)))


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.norm.mean[...] = jnp.arange(4.0)
        self.training = True

    def __call__(self, images: Any, train: bool = True) -> Any:
        values = nnx.relu(self.norm(self.conv(images), use_running_average=not train))
        return -values if train or self.training else values


NNX = Nnx()


class Asks(Nnx):
    def __call__(self, images: Any, rngs: Any, is_train: bool) -> Any:
        return super().__call__(images + (1 if is_train else 0))


class Bound(Nnx):
    def __call__(self, images: Any, shift: float) -> Any:
        return super().__call__(images + shift)


def nnx_state() -> TrainState:
    graphdef, parameters, others = nnx.split(NNX, nnx.Param, ...)
    return State.create(apply_fn=graphdef.apply, params=parameters, batch_stats=others, tx=optax.sgd(0.1))


NNX_GIVEN = {
    "module": lambda: NNX,
    "nnx.jit": lambda: nnx.jit(NNX),
    "jax.jit": lambda: jax.jit(NNX),
    "method": lambda: NNX.__call__,
    "split": lambda: nnx.split(NNX),
    "split in three": lambda: nnx.split(NNX, nnx.Param, ...),
    "training state": nnx_state,
    "asks for rngs and a switch": Asks,
    "partial": lambda: functools.partial(Bound(), shift=0.0),
}


@pytest.fixture(scope="module")
def nnx_maps() -> Any:
    values = NNX.block.conv(IMAGES)
    values = nnx.relu((values - np.arange(4.0, dtype=np.float32)) / np.sqrt(1 + 1e-5))
    return by_hand(NNX.last(values), lambda values: NNX.head(nnx.relu(values).mean(axis=(1, 2))))


@pytest.mark.parametrize("given", NNX_GIVEN)
def test_nnx_as_people_give_it(given: str, nnx_maps: Any) -> None:
    np.testing.assert_allclose(maps_of(NNX_GIVEN[given](), "last"), nnx_maps, atol=1e-5)
    assert NNX.block.training


class Equinox(eqx.Module):
    layers: list[Any]
    head: Any

    def __init__(self, layers: Any = None) -> None:
        first, last = (eqx.nn.Conv2d(n, 4, 3, padding=1, key=key) for n, key in ((3, KEYS[0]), (4, KEYS[1])))
        self.layers = layers or [first, jax.nn.relu, last]
        self.head = eqx.nn.Linear(4, 3, key=KEYS[2])

    def one(self, image: Any) -> Any:
        for layer in self.layers:
            image = layer(image)
        return self.head(jax.nn.relu(image).mean(axis=(1, 2)))

    def __call__(self, image: Any) -> Any:
        return self.one(image)


class MapsItself(Equinox):
    def __call__(self, images: Any) -> Any:
        return jax.vmap(self.one)(images)


class CompiledCall(Equinox):
    @eqx.filter_jit
    def __call__(self, image: Any) -> Any:
        return self.one(image)


class CompiledPart(Equinox):
    @eqx.filter_jit
    def part(self, image: Any) -> Any:
        return self.one(image)

    def __call__(self, image: Any, key: Any, enable_dropout: bool) -> Any:
        return self.part(image + (1 if enable_dropout else 0))


class Loud(eqx.Module):
    """It is in training unless somebody says otherwise."""

    layer: Any

    def __call__(self, image: Any, training: bool = True) -> Any:
        return -self.layer(image) if training else self.layer(image)


def loud() -> Equinox:
    plain = Equinox()
    return Equinox([Loud(plain.layers[0]), *plain.layers[1:]])


class Stateful(Equinox):
    norm: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.norm = eqx.nn.StateIndex(jnp.zeros(()))

    def __call__(self, image: Any, state: Any) -> Any:
        return self.one(image + state.get(self.norm)), state.set(self.norm, jnp.ones(()))


def with_state() -> Any:
    model, state = eqx.nn.make_with_state(Stateful)()
    return eqx.Partial(model, state=state)


EQUINOX_GIVEN = {
    "module": Equinox,
    "eqx.filter_jit": lambda: eqx.filter_jit(Equinox()),
    "jax.jit": lambda: jax.jit(Equinox()),
    "maps itself": MapsItself,
    "compiled, maps itself": lambda: eqx.filter_jit(MapsItself()),
    "compiled call": CompiledCall,
    "compiled part, a key and a switch": CompiledPart,
    "state bound": with_state,
    "state bound, as functools does": lambda: functools.partial(with_state().func, **with_state().keywords),
    "layer in training": loud,
}


@pytest.fixture(scope="module")
def equinox_maps() -> Any:
    model = Equinox()
    activations = jax.jit(jax.vmap(lambda image: model.layers[2](jax.nn.relu(model.layers[0](image)))))(FIRST)
    outputs = jax.vmap(lambda values: model.head(jax.nn.relu(values).mean(axis=(1, 2))))
    return by_hand(activations, outputs, channels=1)


@pytest.mark.parametrize("given", EQUINOX_GIVEN)
def test_equinox_as_people_give_it(given: str, equinox_maps: Any) -> None:
    model = EQUINOX_GIVEN[given]()
    np.testing.assert_allclose(maps_of(model, "layers[2]", FIRST), equinox_maps, atol=1e-5)


def test_an_image_alone_for_a_model_that_maps_itself(equinox_maps: Any) -> None:
    np.testing.assert_allclose(maps_of(MapsItself(), "layers[2]", FIRST[0]), equinox_maps[:1], atol=1e-5)


class Transformed(NamedTuple):
    """As Haiku's."""

    init: Any
    apply: Any


def haiku_apply(parameters: Any, rng: Any, *inputs: Any) -> Any:
    assert rng is None, "nothing is drawn at inference"
    (images,) = inputs
    return tap("features", jax.nn.relu(images @ parameters["mix"])).mean(axis=(1, 2))


def stateful_apply(parameters: Any, state: Any, rng: Any, images: Any) -> Any:
    return haiku_apply(parameters, rng, images), state


HAIKU = Transformed(lambda rng, images: {}, haiku_apply)
MIX = {"mix": jax.random.normal(KEYS[0], (3, 4))}


@pytest.mark.parametrize("given", [HAIKU, HAIKU.apply, jax.jit(HAIKU.apply)], ids=["pair", "apply", "compiled"])
def test_haiku(given: Any) -> None:
    expected = by_hand(jax.nn.relu(IMAGES @ MIX["mix"]), lambda values: values.mean(axis=(1, 2)))
    np.testing.assert_allclose(maps_of((given, MIX)), expected, atol=1e-5)


def test_function_with_bound_parameters() -> None:
    def apply(parameters: Any, images: Any, scale: float) -> Any:
        return scale * tap("features", jax.nn.relu(images @ parameters["mix"])).mean(axis=(1, 2))

    expected = by_hand(jax.nn.relu(IMAGES @ MIX["mix"]), lambda values: values.mean(axis=(1, 2)))
    bound = functools.partial(apply, MIX, scale=2.0)
    for model in (bound, jax.jit(bound), (functools.partial(apply, scale=2.0), MIX)):
        np.testing.assert_allclose(maps_of(model), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"apply requires the argument 'scale'.*partial\(apply, scale=...\), param"):
        maps_of((apply, MIX))


REFUSED = {
    "module alone": (lambda: LINEN, r"Linen came without its variables: give \(Linen\(\.\.\.\), variables\)"),
    "apply alone": (lambda: LINEN.apply, "Linen came without its variables"),
    "parameters alone": (lambda: (LINEN, VARIABLES["params"]), r"and no 'params'\. Give what init returned"),
    "compiled function": (lambda: jax.jit(lambda images: NNX(images)), "'<lambda>' of images alone came"),
    "jax.vmap": (lambda: jax.vmap(Equinox()), "jax.vmap or a decorator has made of a Equinox came.*Give the Equinox"),
    "compiled jax.vmap": (lambda: jax.jit(jax.vmap(Equinox())), "Give the Equinox itself"),
    "eqx.filter_vmap": (lambda: eqx.filter_vmap(Equinox()), "Give the Equinox itself"),
    "decorated": (lambda: functools.wraps(NNX)(lambda images: NNX(images / 255)), "Give the Nnx itself"),
    "haiku": (lambda: HAIKU, r"came without parameters: give \(model.apply, parameters\)"),
    "haiku with a state": (lambda: (stateful_apply, MIX), r"lambda both, images: apply\(\*both, None, images\)\[0\]"),
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_is_no_model_yet(given: str) -> None:
    make, words = REFUSED[given]
    with pytest.raises((TypeError, ValueError), match=words):
        GradCAM(make(), backend_options={"framework": "jax"})


class TestArguments:
    def test_an_unknown_one(self) -> None:
        with pytest.raises(ValueError, match=r"Bound requires the argument 'shift'.*partial\(model, shift=\.\.\.\)"):
            maps_of(Bound(), "last")

        class Shifted(Linen):
            def __call__(self, images: Any, shift: float) -> Any:
                return super().__call__(images + shift, False)

        given = (Shifted(), VARIABLES)
        with pytest.raises(
            ValueError, match=r"'shift'.*\(functools.partial\(module.apply, shift=\.\.\.\), variables\)"
        ):
            maps_of(given, "last")

    def test_an_equinox_model_without_its_state(self) -> None:
        with pytest.raises(ValueError, match=r"Stateful requires the argument 'state'.*\(model, state\)"):
            maps_of(with_state().func, images=FIRST)

    @pytest.mark.parametrize("switch", ["argument", "attribute"])
    def test_inner_modules_of_linen_are_at_inference(self, switch: str) -> None:
        class Noisy(nn.Module):
            training: bool = True

            @nn.compact
            def __call__(self, values: Any) -> Any:
                return values + jax.random.normal(self.make_rng("noise"), values.shape) if self.training else values

        class Told(nn.Module):
            @nn.compact
            def __call__(self, values: Any, train: bool = True) -> Any:
                return values + jax.random.normal(self.make_rng("noise"), values.shape) if train else values

        class Net(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                values = nn.Conv(3, (3, 3), name="last")(images)
                return (Told() if switch == "argument" else Noisy())(values).mean(axis=(1, 2))

        variables = initial(Net(), {"params": KEYS[0], "noise": KEYS[1]})
        kernel = {"params": variables["params"]["last"]}
        expected = by_hand(nn.Conv(3, (3, 3)).apply(kernel, IMAGES), lambda values: values.mean(axis=(1, 2)))
        np.testing.assert_allclose(maps_of((Net(), variables), "last"), expected, atol=1e-5)

    def test_numbers_drawn_at_inference(self) -> None:
        class Net(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                values = nn.Conv(3, (3, 3))(images)
                return (values + jax.random.normal(self.make_rng("noise"), values.shape)).mean(axis=(1, 2))

        variables = initial(Net(), {"params": KEYS[0], "noise": KEYS[1]})
        with pytest.raises(ValueError, match=r"Net draws random numbers also at inference.*rngs=\{"):
            maps_of((Net(), variables))
        given = (functools.partial(Net().apply, rngs={"noise": KEYS[1]}), variables)
        assert maps_of(given).shape == (2, 12, 10)


class Residual(nn.Module):
    @nn.compact
    def __call__(self, values: Any, _: None = None) -> tuple[Any, None]:
        return nn.relu(nn.Conv(4, (3, 3))(values)) + values, None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, images: Any) -> Any:
        values = nn.Conv(4, (3, 3), name="stem")(images)
        stack = nn.scan(Residual, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.Dense(3)(stack(name="blocks")(values, None)[0].mean(axis=(1, 2)))


class NnxResidual(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    def __call__(self, values: Any) -> Any:
        return nnx.relu(self.conv(values)) + values


class NnxScanned(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(1)
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.blocks = nnx.split_rngs(splits=3)(nnx.vmap(NnxResidual))(rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, images: Any) -> Any:
        scan = nnx.scan(lambda values, block: block(values), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(scan(self.stem(images), self.blocks).mean(axis=(1, 2)))


class EquinoxScanned(eqx.Module):
    stem: Any
    blocks: Any
    head: Any

    def __init__(self) -> None:
        self.stem = eqx.nn.Conv2d(3, 4, 3, padding=1, key=KEYS[0])
        self.blocks = eqx.filter_vmap(lambda key: eqx.nn.Conv2d(4, 4, 3, padding=1, key=key))(KEYS[:3])
        self.head = eqx.nn.Linear(4, 3, key=KEYS[1])

    def __call__(self, image: Any) -> Any:
        arrays, static = eqx.partition(self.blocks, eqx.is_array)

        def step(values: Any, each: Any) -> tuple[Any, None]:
            return jax.nn.relu(eqx.combine(each, static)(values)) + values, None

        return self.head(jax.lax.scan(step, self.stem(image), arrays)[0].mean(axis=(1, 2)))


class TestStackedKernels:
    """A kernel of a stack has an axis more, which says nothing of the images."""

    def test_linen(self) -> None:
        module = Scanned()
        variables = initial(module)
        layers = variables["params"]

        def block(values: Any, index: int) -> Any:
            kernel = jax.tree.map(lambda each: each[index], layers["blocks"])
            return Residual().apply({"params": kernel}, values)[0]

        def head(values: Any) -> Any:
            return nn.Dense(3).apply({"params": layers["Dense_0"]}, values.mean(axis=(1, 2)))

        stem = nn.Conv(4, (3, 3)).apply({"params": layers["stem"]}, IMAGES)
        last = jax.jit(lambda values: block(block(block(values, 0), 1), 2))(stem)
        model = (module, variables)
        np.testing.assert_allclose(maps_of(model), by_hand(last, head), atol=1e-5)
        np.testing.assert_allclose(maps_of(model, images=IMAGES[1]), by_hand(last, head)[1:], atol=1e-5)
        first = by_hand(block(stem, 0), lambda values: head(block(block(values, 1), 2)))
        np.testing.assert_allclose(maps_of(model, "blocks#0"), first, atol=1e-5)

    def test_nnx(self) -> None:
        model = NnxScanned()
        graphdef, state = nnx.split(model.blocks)
        blocks = [nnx.merge(graphdef, jax.tree.map(lambda each, place=place: each[place], state)) for place in range(3)]
        last = blocks[2](blocks[1](blocks[0](model.stem(IMAGES))))
        expected = by_hand(last, lambda values: model.head(values.mean(axis=(1, 2))))
        np.testing.assert_allclose(maps_of(model), expected, atol=1e-5)
        np.testing.assert_allclose(maps_of(model, images=IMAGES[0]), expected[:1], atol=1e-5)

    def test_equinox(self) -> None:
        model = EquinoxScanned()
        convolutions = [jax.tree.map(lambda each, place=place: each[place], model.blocks) for place in range(3)]

        def before_last(image: Any) -> Any:
            values = model.stem(image)
            for convolution in convolutions[:2]:
                values = jax.nn.relu(convolution(values)) + values
            return values

        before = jax.jit(jax.vmap(before_last))(FIRST)

        def outputs(values: Any) -> Any:
            return jax.vmap(model.head)((jax.nn.relu(values) + before).mean(axis=(2, 3)))

        expected = by_hand(jax.vmap(convolutions[2])(before), outputs, channels=1)
        np.testing.assert_allclose(maps_of(model, "blocks", FIRST), expected, atol=1e-5)
        np.testing.assert_allclose(maps_of(model, "blocks", FIRST[0]), expected[:1], atol=1e-5)

    def test_ensembles_of_members_that_are_mapped(self) -> None:
        """The stem before them is seen as always, and a member's layer is that of all members."""

        class Member(nn.Module):
            @nn.compact
            def __call__(self, values: Any) -> Any:
                return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3), name="conv")(values)).mean(axis=(1, 2)))

        class Ensemble(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                members = nn.vmap(
                    Member, in_axes=None, variable_axes={"params": 0}, split_rngs={"params": True}, axis_size=2
                )
                return members(name="members")(nn.Conv(4, (3, 3), name="stem")(images)).mean(axis=0)

        module = Ensemble()
        variables = initial(module)

        def outputs(values: Any) -> Any:
            each = [jax.tree.map(lambda leaf, i=i: leaf[i], variables["params"]["members"]) for i in range(2)]
            return sum(Member().apply({"params": member}, values) for member in each) / 2

        stem = nn.Conv(4, (3, 3)).apply({"params": variables["params"]["stem"]}, IMAGES)
        model = (module, variables)
        for images, expected in ((IMAGES, by_hand(stem, outputs)), (IMAGES[0], by_hand(stem, outputs)[:1])):
            np.testing.assert_allclose(maps_of(model, "stem", images), expected, atol=1e-5)
        with pytest.raises(ValueError, match=r"'members/conv' has shape \(2, 2, 12, 10, 4\)"):
            maps_of(model, "members/conv")


class Attends(nn.Module):
    """A vision transformer without a convolution: its kernels are of dense layers, some over several axes."""

    flat: bool = False

    @nn.compact
    def __call__(self, images: Any) -> Any:
        if self.flat:
            patches = images.reshape(-1, 6, 2, 5, 2, 3)
        else:
            batch, height, width, channels = images.shape
            patches = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
        tokens = nn.Dense(8)(patches.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 30, 12))
        tokens = tokens + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(tokens))
        return nn.Dense(3)(nn.LayerNorm(name="last")(tokens).mean(axis=1))


@pytest.mark.parametrize("flat", [False, True])
def test_a_transformer_without_convolutions(flat: bool) -> None:
    module = Attends(flat)
    variables = initial(module, KEYS[2])
    _, kept = module.apply(variables, IMAGES, capture_intermediates=True)
    tokens = kept["intermediates"]["last"]["__call__"][0]

    def outputs(values: Any) -> Any:
        head = {"params": variables["params"]["Dense_1"]}
        return nn.Dense(3).apply(head, values.reshape(2, 30, 8).mean(axis=1))

    expected = by_hand(tokens.reshape(2, 6, 5, 8), outputs)
    np.testing.assert_allclose(maps_of((module, variables), "last"), expected, atol=1e-5)
    np.testing.assert_allclose(maps_of((module, variables), "last", IMAGES[1]), expected[1:], atol=1e-5)


class TestBatchAxis:
    def test_outputs_without_an_axis_of_classes(self) -> None:
        class Binary(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                return nn.Conv(1, (3, 3), name="last")(images).mean(axis=(1, 2)).squeeze(-1)

        model = (Binary(), initial(Binary()))
        adapter = adapt_model(model)
        assert [adapter.batch_ndim(jnp.asarray(each)) for each in (IMAGES, IMAGES[:1], IMAGES[0])] == [4, 4, 4]

    def test_a_segmentation_model_takes_an_image_alone_and_is_not_given_one(self) -> None:
        module = nn.Sequential([nn.Conv(3, (3, 3)), nn.relu, nn.Conv(12, (1, 1))])
        model = (module, initial(module))
        assert module.apply(model[1], IMAGES[0]).shape == (12, 10, 12)
        for images in (IMAGES, IMAGES[0]):
            assert adapt_model(model).batch_ndim(jnp.asarray(images)) == 4

    def test_frames_that_a_convolution_takes_for_batches(self) -> None:
        class Video(nnx.Module):
            def __init__(self) -> None:
                self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))

            def __call__(self, clips: Any) -> Any:
                return self.conv(clips).mean(axis=(1, 2, 3))

        clips = np.random.default_rng(0).random((2, 5, 12, 10, 3), dtype=np.float32)
        assert adapt_model(Video()).batch_ndim(jnp.asarray(clips)) == 5

    @pytest.mark.parametrize("taken", ["unpacked", "indexed"])
    def test_one_clip_whose_model_takes_frames_apart(self, taken: str) -> None:
        class Video(nnx.Module):
            def __init__(self) -> None:
                self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))

            def __call__(self, clips: Any) -> Any:
                if taken == "unpacked":
                    b, t, h, w, c = clips.shape
                else:
                    b, t, h, w, c = (clips.shape[axis] for axis in range(5))
                return self.conv(clips.reshape(b * t, h, w, c)).reshape(b, t, h, w, 4).mean(axis=(1, 2, 3))

        clips = np.random.default_rng(0).random((2, 5, 12, 10, 3), dtype=np.float32)
        explainer = GradCAM(Video(), "conv")
        alone = explainer(clips[0], 1)
        assert alone.maps.shape == (1, 5, 12, 10)
        np.testing.assert_allclose(alone.maps, explainer(clips, 1).maps[:1], atol=1e-6)

    @pytest.mark.parametrize("error", [ValueError, IndexError])
    def test_a_target_that_fails_makes_no_clip_of_images(self, error: type[Exception]) -> None:
        """The network takes any number of axes in front, so that all images would run as one."""

        class Anything(nnx.Module):
            def __init__(self) -> None:
                self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))

            def __call__(self, images: Any) -> Any:
                return self.conv(images).mean(axis=(-3, -2))

        calls: list[int] = []

        def target(outputs: Any) -> Any:
            calls.append(outputs.ndim)
            if outputs.ndim == 2:
                raise error("a fault of the target")
            return outputs[..., 1].mean(axis=-1)

        with pytest.raises(error, match="a fault of the target"):
            GradCAM(Anything(), "conv")(np.random.default_rng(0).random((2, 12, 10, 3), dtype=np.float32), target)
        assert set(calls) == {2}

    @pytest.mark.parametrize("system", ["linen", "nnx"])
    def test_images_that_the_model_maps_over_itself(self, system: str) -> None:
        """Each of its convolutions gets an image alone."""

        class One(nn.Module):
            @nn.compact
            def __call__(self, image: Any) -> Any:
                return nn.Conv(3, (3, 3), name="conv")(image).mean(axis=(0, 1))

        class All(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                return nn.vmap(One, variable_axes={"params": None}, split_rngs={"params": False})(name="one")(images)

        class NnxAll(nnx.Module):
            def __init__(self) -> None:
                self.conv = nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(0))

            def __call__(self, images: Any) -> Any:
                mapped = nnx.vmap(lambda conv, image: conv(image).mean(axis=(0, 1)), in_axes=(None, 0))
                return mapped(self.conv, images)

        model, layer = (NnxAll(), "conv") if system == "nnx" else ((All(), initial(All())), "one/conv")
        if system == "nnx":
            activations = model.conv(IMAGES)
        else:
            activations = nn.Conv(3, (3, 3)).apply({"params": model[1]["params"]["one"]["conv"]}, IMAGES)
        expected = by_hand(activations, lambda values: values.mean(axis=(1, 2)))
        np.testing.assert_allclose(maps_of(model, layer), expected, atol=1e-5)
        np.testing.assert_allclose(maps_of(model, layer, IMAGES[0]), expected[:1], atol=1e-5)

    def test_what_fits_neither_way_is_said_by_the_axes(self) -> None:
        with pytest.raises(ValueError, match=r"4 axes \(or 3 for one image\): got an array of shape \(10, 3\)"):
            maps_of((LINEN, VARIABLES), images=IMAGES[0, 0])
        with pytest.raises(ValueError, match=r"Linen cannot run on inputs of shape \(1, 12, 10, 5\)"):
            maps_of((LINEN, VARIABLES), images=np.zeros((1, 12, 10, 5), np.float32))


class Patches(eqx.Module):
    """Layers of one token, which the model maps over all of them."""

    embed: Any
    norm: Any
    mlp: Any
    head: Any

    def __init__(self) -> None:
        self.embed = eqx.nn.Conv2d(3, 8, 2, 2, key=KEYS[0])
        self.norm = eqx.nn.LayerNorm(8)
        self.mlp = eqx.nn.MLP(8, 8, 16, 1, key=KEYS[1])
        self.head = eqx.nn.Linear(8, 3, key=KEYS[2])

    def tokens(self, image: Any) -> Any:
        return self.embed(image).reshape(8, -1).T

    def behind(self, tokens: Any, normed: Any) -> Any:
        return self.head(jax.nn.relu(tokens + jax.vmap(self.mlp)(normed)).mean(axis=0))

    def __call__(self, image: Any) -> Any:
        tokens = self.tokens(image)
        return self.behind(tokens, jax.vmap(self.norm)(tokens))


class TestMappedInside:
    def test_layers_of_one_token(self) -> None:
        model = Patches()
        tokens = jax.jit(jax.vmap(model.tokens))(FIRST)
        normed = jax.jit(jax.vmap(jax.vmap(model.norm)))(tokens)

        def outputs(normed: Any) -> Any:
            return jax.vmap(model.behind)(tokens, normed.reshape(2, 30, 8))

        expected = by_hand(normed.reshape(2, 6, 5, 8), outputs)
        np.testing.assert_allclose(maps_of(model, "norm", FIRST), expected, atol=1e-4)
        listed = {layer.name: layer.shape for layer in GradCAM(model).layers(FIRST)}
        assert (listed["embed"], listed["norm"], listed["mlp"]) == ((1, 8, 6, 5), (1, 30, 8), (1, 30, 8))

    def test_activations_put_in_their_place(self) -> None:
        model = Patches()
        adapter = adapt_model(model)
        tokens = jax.vmap(model.tokens)(FIRST)
        replaced = adapter.forward_with(jnp.asarray(FIRST), "norm", jnp.ones((2, 30, 8)))
        expected = jax.vmap(model.behind)(tokens, jnp.ones((2, 30, 8)))
        np.testing.assert_allclose(replaced, expected, atol=1e-5)

    def test_a_tap_under_two_maps_along_other_axes(self) -> None:
        def apply(scale: Any, images: Any) -> Any:
            def pixel(values: Any) -> Any:
                return tap("pixel", values * scale)

            rows = jax.vmap(jax.vmap(pixel, in_axes=1, out_axes=1), in_axes=2, out_axes=2)
            return rows(images).mean(axis=(1, 2))

        adapter = adapt_model((apply, jnp.asarray(2.0)))
        asked = (ClassScores(), jnp.asarray([[CLASS]] * 2))
        captured = adapter.capture(jnp.asarray(IMAGES), ["pixel"], *asked).layers["pixel"]
        # The outermost mapped axis is in front.
        np.testing.assert_allclose(captured.activations, 2 * IMAGES.transpose(2, 1, 0, 3), rtol=1e-6)
        np.testing.assert_allclose(captured.gradients[0, ..., CLASS], np.full((10, 12, 2), 1 / 120), rtol=1e-6)

    def test_scores_of_masked_images(self) -> None:
        np.testing.assert_allclose(
            ScoreCAM(MapsItself(), "layers[2]")(FIRST, CLASS).maps,
            ScoreCAM(Equinox(), "layers[2]")(FIRST, CLASS).maps,
            atol=1e-5,
        )


class TestOutputsOfLayers:
    def test_the_only_array_of_a_container(self) -> None:
        @flax.struct.dataclass
        class Output:
            features: Any
            count: int

        class Backbone(nn.Module):
            kind: Any

            @nn.compact
            def __call__(self, images: Any) -> Any:
                values = nn.Conv(3, (3, 3), name="conv")(images)
                made = {"dict": {"features": values, "none": None}, "dataclass": Output(values, 3)}
                return {**made, "tuple": (None, values), "several": {"features": values, "pooled": values[:, 0, 0]}}[
                    self.kind
                ]

        class Net(nn.Module):
            kind: Any

            @nn.compact
            def __call__(self, images: Any) -> Any:
                output = Backbone(self.kind, name="body")(images)
                values = next(each for each in jax.tree.leaves(output) if hasattr(each, "shape"))
                return values.mean(axis=(1, 2))

        variables = initial(Net("dict"))
        kernel = {"params": variables["params"]["body"]["conv"]}
        expected = by_hand(nn.Conv(3, (3, 3)).apply(kernel, IMAGES), lambda values: values.mean(axis=(1, 2)))
        for kind in ("dict", "dataclass", "tuple"):
            np.testing.assert_allclose(maps_of((Net(kind), variables), "body"), expected, atol=1e-5)
        with pytest.raises(ValueError, match=r"returned a dict of 2 arrays \(\['features'\], \['pooled'\]\), and one"):
            maps_of((Net("several"), variables), "body")

    def test_calls_of_other_shapes(self) -> None:
        """A layer that two scales share."""

        class Pyramid(nnx.Module):
            def __init__(self) -> None:
                self.conv = nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(0))

            def __call__(self, images: Any) -> Any:
                small = nnx.avg_pool(images, (2, 2), (2, 2))
                return nnx.relu(self.conv(images)).mean(axis=(1, 2)) + self.conv(small).mean(axis=(1, 2))

        model = Pyramid()
        expected = by_hand(model.conv(IMAGES), lambda values: nnx.relu(values).mean(axis=(1, 2)))
        np.testing.assert_allclose(maps_of(model, "conv#0"), expected, atol=1e-5)

    @pytest.mark.parametrize("kind", ["branch", "loop"])
    def test_inside_of_what_cannot_be_left(self, kind: str) -> None:
        def apply(scale: Any, images: Any) -> Any:
            def inside(values: Any) -> Any:
                return tap("inside", values * scale)

            if kind == "branch":
                values = jax.lax.cond(images.sum() > 0, inside, lambda values: values, images)
            else:
                values = jax.lax.while_loop(lambda values: values.sum() < 9, inside, images)
            return tap("around", values).mean(axis=(1, 2))

        model = (apply, jnp.asarray(2.0))
        assert names(model) == ["around"]
        with pytest.raises(ValueError, match=r"'inside' of apply runs inside a transformation .*a loop or a branch"):
            maps_of(model, "inside")

    def test_both_inside_and_outside(self) -> None:
        """Of a layer that runs in both places, the call outside is the only one that has a number."""

        def apply(scale: Any, images: Any) -> Any:
            values = tap("twice", images * scale)
            return jax.checkpoint(lambda values: tap("twice", values * scale))(values).mean(axis=(1, 2))

        model = (apply, jnp.asarray(2.0))
        with pytest.raises(ValueError, match="'twice' of apply runs inside a transformation"):
            maps_of(model, "twice")
        expected = by_hand(2 * IMAGES, lambda values: 2 * values.mean(axis=(1, 2)))
        np.testing.assert_allclose(maps_of(model, "twice#0"), expected, atol=1e-5)


class BridgedLinen(nn.Module):
    """In training unless somebody says otherwise."""

    @nn.compact
    def __call__(self, images: Any, train: bool = True) -> Any:
        values = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(images))
        return nn.Conv(4, (3, 3), name="last")(nn.relu(values))


class Host(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.net = nnx.bridge.ToNNX(BridgedLinen(), rngs=rngs).lazy_init(IMAGES)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, images: Any) -> Any:
        return self.head(nnx.relu(self.net(images)).mean(axis=(1, 2)))


class TestBridge:
    def test_linen_in_a_host(self) -> None:
        model = Host()
        variables = {
            "params": nnx.to_pure_dict(nnx.state(model.net, nnx.Param)),
            "batch_stats": nnx.to_pure_dict(nnx.state(model.net, nnx.BatchStat)),
        }
        activations = BridgedLinen().apply(variables, IMAGES, train=False)
        expected = by_hand(activations, lambda values: model.head(nnx.relu(values).mean(axis=(1, 2))))
        assert names(model)[-3:] == ["net/last", "net", "head"]
        for layer in (None, "net", "net/last", model.net):
            np.testing.assert_allclose(maps_of(model, layer), expected, atol=1e-5)
        np.testing.assert_allclose(maps_of(model, "net", IMAGES[0]), expected[:1], atol=1e-5)

    def test_linen_alone(self, linen_maps: Any) -> None:
        model = nnx.bridge.ToNNX(LINEN)
        for attribute, value in nnx.bridge.variables.linen_vars_to_nnx_attrs(VARIABLES).items():
            setattr(model, attribute, nnx.data(value))
        np.testing.assert_allclose(maps_of(model, "last"), linen_maps, atol=1e-5)
        with pytest.raises(ValueError, match=r"Linen has no layer 'lost'\. Nearest names: 'last'"):
            maps_of(model, "lost")

    def test_nnx_in_linen(self) -> None:
        class Norm(nnx.Module):
            def __init__(self, rngs: nnx.Rngs) -> None:
                self.norm = nnx.BatchNorm(3, rngs=rngs)

            def __call__(self, values: Any) -> Any:
                return self.norm(values)

        class Net(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                values = nn.Conv(3, (3, 3), name="last")(images)
                return nnx.bridge.ToLinen(Norm, name="norm")(values).mean(axis=(1, 2))

        variables = initial(Net())
        # The running averages are 0 and 1, so that at inference the norm does nothing.
        kernel = {"params": variables["params"]["last"]}
        expected = by_hand(nn.Conv(3, (3, 3)).apply(kernel, IMAGES), lambda values: values.mean(axis=(1, 2)))
        np.testing.assert_allclose(maps_of((Net(), variables), "last"), expected, atol=1e-4)


class TestFloat16:
    """The smallest number of float16 is 6e-8, and the gradient of a mean over many positions is less."""

    @staticmethod
    def network(parameters: Any, images: Any) -> Any:
        values = tap("features", jax.nn.relu(images @ parameters["mix"]))
        # The gradients of the positions differ from each other: that is what LayerCAM reads.
        values = values * parameters["places"]
        return values.mean(axis=(1, 2)) @ parameters["head"]

    @pytest.mark.parametrize("weight", [1e-2, 3.0], ids=["small", "large"])
    def test_gradients_do_not_underflow(self, weight: float) -> None:
        random = np.random.default_rng(0)
        images = random.random((1, 128, 128, 3), dtype=np.float32)
        parameters = {
            "mix": jnp.asarray(random.normal(size=(3, 4)), jnp.float32),
            "places": jnp.asarray(random.random((128, 128, 1)), jnp.float32),
            "head": jnp.asarray(weight * random.random((4, 3)), jnp.float32),
        }
        halved = jax.tree.map(lambda each: each.astype(jnp.float16), parameters)
        expected, found = (LayerCAM((self.network, each))(images, targets=CLASS).maps for each in (parameters, halved))
        # Ten bits of mantissa, in products and in a sum of four channels.
        np.testing.assert_allclose(found, expected, atol=5e-3)

    @pytest.mark.parametrize("weight", [25, 256])
    def test_a_scale_that_is_too_large_is_made_smaller(self, weight: int) -> None:
        """Also below 1: the largest number of float16 is 65504."""

        def apply(matrix: Any, images: Any) -> Any:
            return tap("features", images).sum(axis=(1, 2)) @ matrix @ matrix

        adapter = adapt_model((apply, weight * jnp.eye(3, dtype=jnp.float16)))
        images = adapter.as_array(IMAGES[:, :2, :2] / 100)
        asked = (ClassScores(), jnp.asarray([[CLASS]] * 2))
        gradients = adapter.capture(images, ["features"], *asked).layers["features"].gradients
        assert gradients.dtype == jnp.float32
        np.testing.assert_array_equal(gradients[0, ..., CLASS], np.full((2, 2, 2), weight**2))

    def test_other_dtypes_are_left_alone(self) -> None:
        for dtype in (jnp.float32, jnp.bfloat16):
            adapter = adapt_model(
                (lambda scale, images: tap("x", images).mean(axis=(1, 2)) * scale, jnp.ones((), dtype))
            )
            images = adapter.as_array(IMAGES)
            gradients = adapter.capture(images, ["x"], ClassScores(), jnp.asarray([[CLASS]] * 2)).layers["x"].gradients
            assert gradients.dtype == dtype


class TestActivations:
    """A function is no layer, so `layers` says that one follows."""

    def test_what_follows_a_layer(self) -> None:
        class Net(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                values = nn.relu(nn.Conv(3, (3, 3), name="relu")(images))
                values = jax.jit(nn.gelu)(nn.Conv(3, (3, 3), name="gelu")(values))
                values = nn.silu(nn.Conv(3, (3, 3), name="silu")(values))
                values = jnp.maximum(nn.Conv(3, (3, 3), name="maximum")(values), 0)
                values = jnp.tanh(nn.Conv(3, (3, 3), name="tanh")(values))
                values = nn.LayerNorm(name="norm")(nn.Conv(3, (3, 3), name="nothing")(values))
                return nn.softmax(nn.Dense(3, name="head")(values.mean(axis=(1, 2))))

        listed = GradCAM((Net(), initial(Net()))).layers(IMAGES)
        followed = {layer.name: layer.followed_by for layer in listed if layer.followed_by}
        assert followed == {"relu": "relu", "gelu": "gelu", "silu": "silu", "maximum": "relu", "tanh": "tanh"}
        table = list(layer_table(listed))
        assert table[1].split()[:9] == ["relu", "Conv,", "then", "relu", "12", "x", "10", "x", "3"]

    def test_an_activation_that_is_a_layer(self) -> None:
        rngs = nnx.Rngs(0)
        convolutions = [nnx.Conv(3, 3, (3, 3), rngs=rngs) for _ in range(2)]
        model = nnx.Sequential(convolutions[0], nnx.silu, convolutions[1], lambda values: tap("x", nnx.relu(values)))
        assert [layer.followed_by for layer in GradCAM(model).layers(IMAGES)] == [""] * 5

    def test_equinox_maps_it_over_the_batch(self) -> None:
        class Net(Equinox):
            def __call__(self, image: Any) -> Any:
                values = jax.nn.relu(self.layers[0](image))
                return self.head(jax.vmap(jax.nn.elu)(self.layers[2](values)).mean(axis=(1, 2)))

        listed = {layer.name: layer.followed_by for layer in GradCAM(Net()).layers(FIRST)}
        assert listed == {"layers[0]": "relu", "layers[2]": "elu", "head": ""}
