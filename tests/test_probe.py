"""What is measured of a layer, against maps written by hand: which call, which axes, which tokens, which default."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import numpy as np
import pytest

from fusioncam_core import AblationCAM, EigenCAM, FusionCAM, GradCAM, ScoreCAM
from fusioncam_core.errors import EvidenceWarning
from fusioncam_core.models.probe import Evidence, Patches, Probe, batch_axis, measured_axes

torch = pytest.importorskip("torch")
nn = torch.nn

import by_hand  # noqa: E402 - it imports PyTorch

CLOSE = {"atol": 1e-5, "rtol": 0.0}


def image(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(0)).normal(size=shape).astype(np.float32))


def tower(channels: int, width: int = 6) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())


def first_class(outputs: Any) -> Any:
    return outputs[:, 1]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.fc = tower(1), nn.Linear(6, 2)

    def forward(self, left: Any, right: Any) -> Any:
        return self.fc((self.backbone(left).mean((2, 3)) - self.backbone(right).mean((2, 3))).abs())


class Joined(Siamese):
    """Both images through the backbone at once, one behind the other in the batch."""

    def forward(self, left: Any, right: Any) -> Any:
        one, other = self.backbone(torch.cat([left, right])).mean((2, 3)).chunk(2)
        return self.fc((one - other).abs())


class Woven(Siamese):
    """The same with the two images of a pair next to each other."""

    def forward(self, left: Any, right: Any) -> Any:
        rows = self.backbone(torch.stack([left, right], 1).flatten(0, 1)).mean((2, 3)).unflatten(0, (-1, 2))
        return self.fc((rows[:, 0] - rows[:, 1]).abs())


def test_passes_are_started_before_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a framework returns at once, they run beside each other."""
    done: list[str] = []
    cam = GradCAM(nn.Sequential(tower(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval())
    for owner, name in ((type(cam.adapter), "observe"), (Probe, "_check_outputs")):
        of_class = getattr(owner, name)

        def noted(self: Any, *arguments: Any, of_class: Any = of_class, name: str = name) -> Any:
            done.append(name)
            return of_class(self, *arguments)

        monkeypatch.setattr(owner, name, noted)
    assert cam(image(1, 3, 8, 8), 0).layer == "0"
    assert done == ["observe", "observe", "_check_outputs", "_check_outputs"]


class TestSeveralInputs:
    @pytest.mark.parametrize("kind", [Siamese, Joined, Woven])
    @pytest.mark.parametrize("layer", ["backbone", "backbone.0", None])
    @pytest.mark.parametrize("which", [0, 1])
    def test_the_explained_image_of_two(self, kind: Any, layer: Any, which: int) -> None:
        model, plain = kind().eval(), Siamese()
        plain.load_state_dict(model.state_dict())
        pair = image(3, 1, 24, 24), image(3, 1, 24, 24).flip(-1)
        explanation = GradCAM(model, layer, masked_input=which)(pair, 1)
        name = (layer or "backbone").partition("#")[0]
        expected = by_hand.grad_cam(
            plain, plain.get_submodule(name), lambda net: net(*pair), first_class, (24, 24), which=which
        )
        torch.testing.assert_close(explanation.maps, expected, **CLOSE)

    def test_region_methods_take_the_same_call(self) -> None:
        model = Siamese().eval()
        pair = image(1, 1, 24, 24), image(1, 1, 24, 24).flip(-1)
        for method in (ScoreCAM, EigenCAM, AblationCAM, FusionCAM):
            found = method(model, "backbone", masked_input=0)(pair, 1)
            torch.testing.assert_close(found.maps, method(model, "backbone#0", masked_input=0)(pair, 1).maps)
            assert found.layer == "backbone#0"

    def test_single_channels_of_joined_images_cannot_be_switched_off(self) -> None:
        pair = image(1, 1, 24, 24), image(1, 1, 24, 24).flip(-1)
        with pytest.raises(ValueError, match="an image has not one row of the first axis"):
            AblationCAM(Joined(), "backbone", masked_input=0)(pair, 1)

    def test_the_branch_of_the_explained_input(self) -> None:
        class RgbAndDepth(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rgb, self.depth, self.fc = tower(3), tower(1), nn.Linear(12, 3)

            def forward(self, rgb: Any, depth: Any) -> Any:
                return self.fc(torch.cat([self.rgb(rgb).mean((2, 3)), self.depth(depth).mean((2, 3))], 1))

        model = RgbAndDepth()
        inputs = {"rgb": image(2, 3, 24, 24), "depth": image(2, 1, 24, 24)}
        assert GradCAM(model, masked_input="rgb")(inputs, 1).layer == "rgb"
        assert GradCAM(model, masked_input="depth")(inputs, 1).layer == "depth"
        with pytest.warns(EvidenceWarning, match=r"layer 'depth' of RgbAndDepth does not change .* input 'rgb'"):
            GradCAM(model, "depth", masked_input="rgb")(inputs, 1)


class TestAxes:
    def test_time_behind_a_recurrent_layer(self) -> None:
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Sequential(nn.Conv1d(2, 6, 3, padding=1), nn.ReLU())
                self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
                self.fc = nn.Linear(10, 3)

            def forward(self, signals: Any) -> Any:
                return self.fc(self.lstm(self.conv(signals).transpose(1, 2))[0].mean(1))

        model, signals = Recurrent(), image(2, 2, 64)
        explanation = GradCAM(model)(signals, 0)
        assert explanation.layer == "lstm"
        expected = by_hand.grad_cam(
            model, model.lstm, lambda net: net(signals), lambda o: o[:, 0], (64,), to_maps=lambda a: a.transpose(1, 2)
        )
        torch.testing.assert_close(explanation.maps, expected, **CLOSE)

    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.filterwarnings("ignore:enable_nested_tensor")
    def test_a_transformer_on_signals(self, batch_first: bool) -> None:
        class Encoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv1d(2, 8, 4, stride=4)
                self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first), 2)
                self.fc = nn.Linear(8, 3)

            def forward(self, signals: Any) -> Any:
                axes = (0, 2, 1) if batch_first else (2, 0, 1)
                return self.fc(self.encoder(self.conv(signals).permute(axes)).mean(1 if batch_first else 0))

        model, signals = Encoder(), image(2, 2, 64)
        explanation = GradCAM(model)(signals, 1)
        assert explanation.layer == "encoder"
        axes = (0, 2, 1) if batch_first else (1, 2, 0)
        expected = by_hand.grad_cam(
            model, model.encoder, lambda net: net(signals), first_class, (64,), to_maps=lambda a: a.permute(axes)
        )
        torch.testing.assert_close(explanation.maps, expected, **CLOSE)

    @pytest.mark.parametrize("width", [12, 5])
    @pytest.mark.parametrize("axes", [(0, 2, 3, 1), (0, 3, 2, 1), (0, 2, 1, 3), (0, 1, 3, 2)])
    def test_channels_anywhere_and_space_either_way_round(self, axes: tuple[int, ...], width: int) -> None:
        """12 channels of 12 x 12: the shape says nothing."""

        class Turned(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.turned, self.fc = nn.Conv2d(3, width, 3, 2, 1), nn.Identity(), nn.Linear(width, 3)

            def forward(self, images: Any) -> Any:
                turned = self.turned(self.conv(images).relu().permute(axes).contiguous())
                return self.fc(turned.square().mean([axes.index(2), axes.index(3)]))

        model, images = Turned(), image(2, 3, 24, 24)
        back = tuple(axes.index(axis) for axis in range(4))
        expected = by_hand.grad_cam(
            model, model.turned, lambda net: net(images), first_class, (24, 24), to_maps=lambda a: a.permute(back)
        )
        torch.testing.assert_close(GradCAM(model, "turned")(images, 1).maps, expected, **CLOSE)

    def test_unequal_strides(self) -> None:
        class Spectral(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.fc = nn.Conv2d(1, 6, 3, stride=(8, 1), padding=1), nn.Linear(6, 3)

            def forward(self, images: Any) -> Any:
                return self.fc(self.conv(images).relu().mean((2, 3)))

        model, images = Spectral(), image(1, 1, 32, 40)
        explanation = GradCAM(model)(images, 1)
        expected = by_hand.grad_cam(model, model.conv, lambda net: net(images), first_class, (32, 40))
        assert explanation.layer == "conv"
        torch.testing.assert_close(
            explanation.maps,
            by_hand.grad_cam(model, model.conv, lambda net: net(images), first_class, (32, 40)),
            **CLOSE,
        )
        assert expected.max() == 1


class Tokens(nn.Module):
    """Patches of 8 pixels with other tokens before and behind them, two blocks of attention, a mean over patches."""

    def __init__(self, before: int, after: int, size: tuple[int, int], *, by_columns: bool = False) -> None:
        super().__init__()
        self.before, self.by_columns = before, by_columns
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.head = nn.Parameter(torch.randn(1, before, 16))
        self.tail = nn.Parameter(torch.randn(1, after, 16))
        self.count = (size[0] // 8) * (size[1] // 8)
        self.places = nn.Parameter(0.1 * torch.randn(1, before + self.count + after, 16))
        layers = [nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True) for _ in range(2)]
        self.blocks = nn.ModuleList(layers)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, images: Any) -> Any:
        maps = self.patches(images)
        patches = (maps.transpose(2, 3) if self.by_columns else maps).flatten(2).transpose(1, 2)
        rows = len(images)
        tokens = torch.cat([self.head.expand(rows, -1, -1), patches, self.tail.expand(rows, -1, -1)], 1) + self.places
        for block in self.blocks:
            tokens = block(tokens)
        return self.fc(self.norm(tokens)[:, self.before : self.before + self.count].mean(1))


class TestTokens:
    @pytest.mark.parametrize(
        ("before", "after", "size"),
        [(0, 0, (32, 32)), (1, 0, (32, 48)), (5, 0, (40, 40)), (8, 0, (32, 32)), (1, 10, (32, 32)), (0, 3, (44, 36))],
    )
    @pytest.mark.parametrize("by_columns", [False, True])
    def test_tokens_before_and_behind(self, before: int, after: int, size: tuple[int, int], by_columns: bool) -> None:
        """(44, 36) is no multiple of the patches, which leave the last pixels out."""
        model, images = Tokens(before, after, size, by_columns=by_columns).eval(), image(2, 3, *size)
        rows, columns = size[0] // 8, size[1] // 8

        def to_maps(tokens: Any) -> Any:
            own = tokens[:, before : before + rows * columns].transpose(1, 2)
            return (
                own.unflatten(2, (columns, rows)).transpose(2, 3) if by_columns else own.unflatten(2, (rows, columns))
            )

        explanation = GradCAM(model)(images, 1)
        assert explanation.layer == "norm"
        expected = by_hand.grad_cam(model, model.norm, lambda net: net(images), first_class, size, to_maps=to_maps)
        torch.testing.assert_close(explanation.maps, expected, **CLOSE)

    def test_the_users_grid_is_obeyed_and_measured_against(self) -> None:
        model, images = Tokens(1, 2, (32, 32)).eval(), image(1, 3, 32, 32)
        told = GradCAM(model, "norm", reshape=(4, 4))(images, 1)
        torch.testing.assert_close(told.maps, GradCAM(model, "norm")(images, 1).maps)
        with pytest.warns(
            EvidenceWarning, match=r"reshape=\(2, 8\) was given .* a grid of \(4, 4\) was measured, with 1"
        ):
            GradCAM(model, "norm", reshape=(2, 8))(images, 1)

    def test_queries_are_no_patches(self) -> None:
        class Queries(nn.Module):
            """Sixteen queries that look at all patches: as many as a grid of 4 x 4 has."""

            def __init__(self) -> None:
                super().__init__()
                self.patches = nn.Conv2d(3, 16, 8, stride=8)
                self.queries = nn.Parameter(torch.randn(1, 16, 16))
                self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
                self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 3)

            def forward(self, images: Any) -> Any:
                patches = self.patches(images).flatten(2).transpose(1, 2)
                queries = self.queries.expand(len(images), -1, -1)
                return self.fc(self.norm(self.attention(queries, patches, patches)[0]).amax(1))

        model, images = Queries().eval(), image(1, 3, 32, 32)
        assert GradCAM(model)(images, 1).layer == "patches"
        with pytest.raises(ValueError, match=r"no grid of its tokens, followed them clearly.* Give reshape="):
            GradCAM(model, "norm")(images, 1)


class Matrices(Tokens):
    """The same with one more attention, whose matrix between tokens is the output of a layer, for each of three heads.

    In a square image it is as much in proportion as a map. Its kind tells nothing in a dropout, a softmax, a module of
    one's own.
    """

    def __init__(self, before: int, after: int, size: tuple[int, int], kind: type[nn.Module], **keywords: Any) -> None:
        super().__init__(before, after, size)
        self.queries, self.matrix = nn.Linear(16, 48), kind(**keywords)

    def forward(self, images: Any) -> Any:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        rows = len(images)
        tokens = torch.cat([self.head.expand(rows, -1, -1), patches, self.tail.expand(rows, -1, -1)], 1) + self.places
        read = self.norm(self.blocks[0](tokens))
        heads = self.queries(read).unflatten(2, (3, 16)).transpose(1, 2)
        seen = self.matrix(4 * heads @ heads.transpose(2, 3)).softmax(-1) @ read[:, None]
        return self.fc((read + seen.mean(1))[:, 0])


class TestMatricesBetweenTokens:
    @pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 0), (5, 0), (1, 2)])
    @pytest.mark.parametrize(
        ("kind", "keywords"), [(nn.Dropout, {"p": 0.1}), (nn.Softmax, {"dim": -1}), (nn.Hardtanh, {})]
    )
    def test_they_are_no_maps(self, before: int, after: int, kind: Any, keywords: dict[str, Any]) -> None:
        model, images = Matrices(before, after, (40, 40), kind, **keywords).eval(), image(1, 3, 40, 40)
        explainer = GradCAM(model)
        assert explainer(images, 1).layer in ("norm", "queries")
        assert "matrix" not in {each.name for each in explainer.layers(images) if each.spatial}
        with pytest.raises(ValueError, match=r"'matrix' has shape \(1, 3, \d+, \d+\), .* Give reshape="):
            GradCAM(model, "matrix")(images, 1)

    def test_a_map_as_long_as_a_row_of_tokens(self) -> None:
        """Its axes follow the image's: what was measured is believed."""

        class Hybrid(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.maps = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
                self.patches, self.norm, self.fc = nn.Conv2d(6, 16, 4, stride=4), nn.LayerNorm(16), nn.Linear(16, 3)

            def forward(self, images: Any) -> Any:
                return self.fc(self.norm(self.patches(self.maps(images)).flatten(2).transpose(1, 2)).mean(1))

        model, images = Hybrid().eval(), image(1, 3, 16, 16)
        explanation = GradCAM(model, "maps")(images, 1)
        expected = by_hand.grad_cam(model, model.maps, lambda net: net(images), first_class, (16, 16))
        torch.testing.assert_close(explanation.maps, expected, **CLOSE)


class TestFolded:
    """Frames, views and members of bags in the batch axis."""

    def test_a_bag_is_refused(self) -> None:
        class Bag(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features, self.fc = tower(3), nn.Linear(6, 2)

            def forward(self, bag: Any) -> Any:
                return self.fc(self.features(bag).mean((2, 3)).mean(0, keepdim=True))

        for layer in ("features", None):
            with pytest.raises(ValueError, match=r"makes one output of two images.* Wrap the model"):
                GradCAM(Bag(), layer)(image(5, 3, 16, 16), 1)

    def test_images_that_change_each_other(self) -> None:
        class Centred(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features, self.fc = tower(3), nn.Linear(6, 2)

            def forward(self, images: Any) -> Any:
                pooled = self.features(images).mean((2, 3))
                return self.fc(pooled) + 10 * self.fc(pooled).flip(0)

        with pytest.warns(EvidenceWarning, match=r"change with the other images of its batch"):
            GradCAM(Centred())(image(2, 3, 16, 16), 1)

    @pytest.mark.parametrize("layer", ["features", None])
    def test_frames_that_are_channels_are_refused_with_a_way_out(self, layer: Any) -> None:
        class Frames(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features, self.fc = tower(3), nn.Linear(6, 2)

            def forward(self, clips: Any) -> Any:
                frames = clips.unflatten(1, (4, 3)).flatten(0, 1)
                return self.fc(self.features(frames).mean((2, 3)).unflatten(0, (-1, 4)).mean(1))

        model, clips = Frames(), image(2, 12, 16, 16)
        with pytest.raises(ValueError, match=r"An image has 4 rows of its batch: .* Give reshape="):
            GradCAM(model, layer)(clips, 1)

        def frames_as_channels(values: Any) -> Any:
            return values.unflatten(0, (-1, 4)).flatten(1, 2)

        explanation = GradCAM(model, "features", reshape=frames_as_channels)(clips, 1)
        expected = by_hand.grad_cam(
            model, model.features, lambda net: net(clips), first_class, (16, 16), to_maps=frames_as_channels
        )
        torch.testing.assert_close(explanation.maps, expected, **CLOSE)


class Clip(nn.Module):
    """Frames through a network of images, folded into its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.lstm, self.fc = tower(3), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, clips: Any) -> Any:
        frames = self.features(clips.flatten(0, 1)).mean((2, 3)).unflatten(0, (len(clips), -1))
        return self.fc(self.lstm(frames)[0][:, -1])


def as_frames(activations: Any) -> Any:
    """(1, 6, 3, 20, 16) of the clip's tower, whose frames are folded into the batch."""
    return activations.unflatten(0, (1, 6)).transpose(1, 2)


class TestChannelsOfTheInput:
    """Where nobody says where they are, and the shape leaves several readings."""

    @pytest.mark.parametrize("layer", ["features", None])
    def test_frames_before_channels(self, layer: Any) -> None:
        model, clips = Clip(), image(2, 6, 3, 20, 16)
        explanation = GradCAM(model, layer)(clips, 0)
        assert explanation.maps.shape == (2, 6, 20, 16)
        expected = by_hand.grad_cam(
            model,
            model.features,
            lambda net: net(clips),
            lambda outputs: outputs[:, 0],
            (6, 20, 16),
            to_maps=lambda a: a.unflatten(0, (2, 6)).transpose(1, 2),
        )
        torch.testing.assert_close(explanation.maps, expected, **CLOSE)

    @pytest.mark.parametrize("taken", ["unpacked", "sized", "flattened"])
    @pytest.mark.parametrize("method", [GradCAM, FusionCAM])
    def test_one_clip_without_an_axis_for_the_batch(self, taken: str, method: Any) -> None:
        """A convolution expects an axis less than the model, so that the clip looks like a batch of its frames."""

        class Taken(Clip):
            def forward(self, clips: Any) -> Any:
                if taken == "unpacked":
                    _b, _t, _c, _h, _w = clips.shape
                elif taken == "sized":
                    clips.size(4)
                return super().forward(clips)

        model, clips = Taken(), image(2, 6, 3, 20, 16)
        explainer = method(model, "features", batch_size=4)
        alone = explainer(clips[0], 0)
        assert alone.images.shape == (1, 6, 3, 20, 16)
        assert torch.equal(alone.maps, method(model, "features", batch_size=4)(clips[:1], 0).maps)
        assert explainer(clips[1], 0).maps.shape == (1, 6, 20, 16)
        assert explainer(clips, 0).maps.shape == (2, 6, 20, 16)
        shapes = [layer.shape for layer in method(model).layers(clips[0])]
        assert shapes == [layer.shape for layer in method(model).layers(clips[:1])]

    def test_what_the_model_takes_neither_way_is_refused_as_it_came(self) -> None:
        model = nn.Sequential(tower(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
        with pytest.raises(ValueError, match=r"cannot run on inputs of shape \(1, 4, 20, 16\).* to have 3 channels"):
            GradCAM(model)(image(2, 4, 20, 16), 0)

    def test_region_methods_mask_frames(self) -> None:
        explanation = FusionCAM(Clip(), "features", batch_size=4)(image(1, 6, 3, 20, 16), 0)
        assert explanation.maps.shape == (1, 6, 20, 16)
        assert explanation.image_channel_axis == 2

    def test_tubelets(self) -> None:
        class Tubelets(nn.Module):
            """Tokens of 2 x 8 x 8, the frames before the channels, as video transformers have them."""

            def __init__(self) -> None:
                super().__init__()
                self.patches = nn.Conv3d(3, 16, (2, 8, 8), (2, 8, 8))
                self.blocks = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
                self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 3)

            def forward(self, clips: Any) -> Any:
                tokens = self.patches(clips.transpose(1, 2)).flatten(2).transpose(1, 2)
                return self.fc(self.norm(self.blocks(tokens)).square().mean(1))

        model, clips = Tubelets().eval(), image(2, 8, 3, 32, 24)
        sizes: list[int] = []
        model.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
        explanation = GradCAM(model)(clips, 1)
        assert len(sizes[:-1]) <= 8
        assert explanation.layer == "norm"
        expected = by_hand.grad_cam(
            model,
            model.norm,
            lambda net: net(clips),
            first_class,
            (8, 32, 24),
            to_maps=lambda a: a.transpose(1, 2).unflatten(2, (4, 4, 3)),
        )
        torch.testing.assert_close(explanation.maps, expected, **CLOSE)

    def test_a_spectrogram_without_channels(self) -> None:
        class Spectrogram(nn.Module):
            """Overlapping patches of time and bins, the bins outside in the row."""

            def __init__(self) -> None:
                super().__init__()
                self.patches = nn.Conv2d(1, 16, 16, stride=10)
                self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
                self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 3)

            def forward(self, spectrograms: Any) -> Any:
                tokens = self.patches(spectrograms.unsqueeze(1).transpose(2, 3)).flatten(2).transpose(1, 2)
                return self.fc(self.norm(self.block(tokens)).square().mean(1))

        model, spectrograms = Spectrogram().eval(), image(2, 128, 32)
        explanation = GradCAM(model)(spectrograms, 1)
        assert explanation.maps.shape == (2, 128, 32)
        expected = by_hand.grad_cam(
            model,
            model.norm,
            lambda net: net(spectrograms),
            first_class,
            (128, 32),
            to_maps=lambda a: a.transpose(1, 2).unflatten(2, (2, 12)).transpose(2, 3),
        )
        torch.testing.assert_close(explanation.maps, expected, **CLOSE)

    @pytest.mark.parametrize("frames", [2, 3, 4])
    def test_as_few_frames_as_colours(self, frames: int) -> None:
        assert GradCAM(Clip(), "features")(image(1, frames, 3, 20, 16), 0).maps.shape == (1, frames, 20, 16)

    def test_few_frames_behind_the_colours(self) -> None:
        model = nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        assert GradCAM(model)(image(1, 3, 4, 20, 16), 0).maps.shape == (1, 4, 20, 16)

    @pytest.mark.parametrize(
        "make", [nn.Identity, functools.partial(nn.Conv2d, 6, 6, 1, groups=6), functools.partial(nn.BatchNorm2d, 6)]
    )
    def test_layers_that_keep_channels_apart_say_nothing(self, make: Any) -> None:
        """Six channels of 8 x 3: as many channels as rows, and as few columns as colours."""
        first = make()
        model = nn.Sequential(first, nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        assert EigenCAM(model)(image(1, 6, 8, 3), 1).maps.shape == (1, 8, 3)
        alone = nn.Sequential(first, nn.Flatten(), nn.Linear(6 * 8 * 3, 2))
        assert EigenCAM(alone, "0")(image(1, 6, 8, 3), 1).maps.shape == (1, 8, 3)

    def test_many_channels_stay_channels(self) -> None:
        class Bins(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.fc = nn.Conv1d(40, 8, 3, padding=1), nn.Linear(8, 3)

            def forward(self, signals: Any) -> Any:
                return self.fc(self.conv(signals).relu().mean(2))

        assert GradCAM(Bins())(image(2, 40, 50), 1).maps.shape == (2, 50)

    def test_colours_last(self) -> None:
        class Last(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features, self.fc = tower(3), nn.Linear(6, 3)

            def forward(self, images: Any) -> Any:
                return self.fc(self.features(images.permute(0, 3, 1, 2)).mean((2, 3)))

        explanation = GradCAM(Last())(image(2, 20, 24, 3), 1)
        assert explanation.maps.shape == (2, 20, 24)
        assert explanation.image_channel_axis in (-1, 3)

    def test_the_users_word_holds_with_a_warning(self) -> None:
        """Of axes that are told wrongly; and none where they are told rightly, or nothing speaks against them."""
        model, images = nn.Sequential(tower(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), image(1, 3, 20, 24)
        for told, words in ((3, "axis 3"), ("last", "axis 3"), ("none", "that there are none")):
            warned = pytest.warns(EvidenceWarning, match=f"{words}. By what was measured they are in axis 1")
            with warned, contextlib.suppress(ValueError):
                GradCAM(model, "0", backend_options={"channels": told})(images, 1)
        with pytest.warns(EvidenceWarning, match="axis 1. By what was measured they are in axis 2"):
            explanation = GradCAM(Clip(), "features", backend_options={"channels": 1}, reshape=as_frames)(
                image(1, 6, 3, 20, 16), 0
            )
        assert explanation.image_channel_axis == 1
        GradCAM(model, "0", backend_options={"channels": "first"})(images, 1)
        GradCAM(Clip(), "features", backend_options={"channels": 2})(image(1, 6, 3, 20, 16), 0)
        volumes = nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        GradCAM(volumes, "1", backend_options={"channels": 1})(image(1, 3, 4, 20, 16), 0)


class TestDefault:
    def test_what_the_outputs_do_not_depend_on(self) -> None:
        class Beside(nn.Module):
            """A map for display, made after the classes."""

            def __init__(self) -> None:
                super().__init__()
                self.features, self.fc, self.shown = tower(3), nn.Linear(6, 3), nn.Conv2d(6, 3, 3, padding=1)

            def forward(self, images: Any) -> Any:
                maps = self.features(images)
                return {"logits": self.fc(maps.mean((2, 3))), "shown": self.shown(maps)}

        for method in (GradCAM, EigenCAM):
            assert method(Beside())(image(2, 3, 16, 16), 1).layer == "features"

    def test_pooling_and_the_heads_own_map(self) -> None:
        class Fully(nn.Module):
            """As SqueezeNet: a map for each class, averaged; and a pooling layer behind the features."""

            def __init__(self) -> None:
                super().__init__()
                self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
                self.classes = nn.Conv2d(8, 4, 1)

            def forward(self, images: Any) -> Any:
                return self.classes(self.features(images)).relu().mean((2, 3))

        assert GradCAM(Fully())(image(2, 3, 16, 16), 1).layer == "features.1"

    def test_as_many_channels_as_classes_may_be_features(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
        assert GradCAM(model)(image(2, 3, 16, 16), 1).layer == "1"

    @pytest.mark.filterwarnings("ignore:The (gradient|grad-cam|output of layer)")
    def test_an_image_that_changes_nothing(self) -> None:
        model = nn.Sequential(tower(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
        model[0][0].weight.data.zero_()
        with pytest.warns(
            EvidenceWarning, match=r"changes no layer of Sequential by more than rounding.* '0' is taken"
        ):
            GradCAM(model)(image(1, 3, 16, 16), 1)

    def test_only_an_early_layer_left(self) -> None:
        class Scrambled(nn.Module):
            """A convolution, and then rows of numbers in which no patch has a place."""

            def __init__(self) -> None:
                super().__init__()
                self.stem = nn.Conv2d(3, 8, 4, stride=4)
                self.mixed = nn.Sequential(*(nn.Linear(16 * 8, 16 * 8) for _ in range(30)))
                self.fc = nn.Linear(16 * 8, 3)

            def forward(self, images: Any) -> Any:
                return self.fc(self.mixed(self.stem(images).flatten(1)))

        with pytest.warns(EvidenceWarning, match="'stem', number 1 of 33 that ran"):
            assert GradCAM(Scrambled())(image(1, 3, 16, 16), 1).layer == "stem"


class TestCost:
    def test_few_passes_once(self) -> None:
        model, images = Tokens(1, 0, (32, 32)).eval(), image(4, 3, 32, 32)
        sizes: list[int] = []
        model.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
        cam = GradCAM(model)
        cam(images, 1)
        assert len(sizes[:-1]) <= 8
        assert max(sizes[:-1]) <= 2
        assert sizes[-1] == 4
        sizes.clear()
        cam(images, 1)
        GradCAM(model)(images, 1)
        ScoreCAM(model, budget=4)
        assert sizes == [4, 4], "what was measured is kept with the model"

    def test_an_activation_that_a_model_uses_everywhere(self) -> None:
        """Its last call is the default, and its others need no passes of their own."""

        class Shared(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.convolutions = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(40))
                self.act, self.fc = nn.SiLU(), nn.Linear(3, 3)

            def forward(self, images: Any) -> Any:
                for convolution in self.convolutions:
                    images = self.act(convolution(images)) + images
                return self.fc(self.act(images).mean((2, 3)))

        sizes: list[int] = []
        model = Shared().eval()
        model.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
        assert EigenCAM(model)(image(1, 3, 16, 16), 1).layer == "act"
        assert sizes == [1, 2, 2, 1, 1]

    @pytest.mark.parametrize("frozen", [False, True])
    def test_a_target_function_that_looks_at_one_of_many_heads(self, *, frozen: bool) -> None:
        """Most of the last maps are nothing to it, and there are more of them than are looked at in one round."""

        class Detector(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.backbone = tower(3)
                self.neck = nn.Conv2d(6, 6, 1)
                self.heads = nn.ModuleList(
                    nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)) for _ in range(30)
                )

            def forward(self, images: Any) -> Any:
                features = self.neck(self.backbone(images))
                with torch.set_grad_enabled(not frozen and torch.is_grad_enabled()):
                    rows = torch.cat([head(features).flatten(2).mT for head in self.heads], dim=1)
                return [{"boxes": each, "scores": each.amax(-1)} for each in rows]

        def one_head(outputs: Any) -> Any:
            return torch.stack([each["boxes"][15 * 256 : 16 * 256, 1].sum() for each in outputs])

        sizes: list[int] = []
        model = Detector().eval()
        model.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
        assert GradCAM(model)(image(1, 3, 16, 16), one_head).layer == "heads.15.1"
        passes = sizes[: -2 if frozen else -1]  # without the explanation's own, two where gradients are off
        assert len(passes) <= 8
        assert max(passes) <= 2

    def test_evaluations_do_not_count_what_was_measured(self) -> None:
        assert (
            GradCAM(nn.Sequential(tower(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))(image(2, 3, 16, 16), 1).evaluations
            == 2
        )


class TestAModelThatChanges:
    """What was measured of a model holds as long as the model does."""

    def test_a_layer_of_another_shape(self) -> None:
        model = nn.Sequential(tower(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
        images = image(2, 3, 16, 16)
        before = GradCAM(model)(images, 1)
        model[0][0] = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        after = GradCAM(model)(images, 1)
        expected = by_hand.grad_cam(model, model[0], lambda net: net(images), first_class, (16, 16))
        torch.testing.assert_close(after.maps, expected, **CLOSE)
        assert not torch.allclose(before.maps, after.maps)

    def test_a_layer_that_no_longer_runs(self) -> None:
        class Switched(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second, self.fc, self.short = tower(3), tower(6), nn.Linear(6, 3), False

            def forward(self, images: Any) -> Any:
                maps = self.first(images)
                return self.fc((maps if self.short else self.second(maps)).mean((2, 3)))

        model = Switched()
        cam = GradCAM(model)
        assert cam(image(2, 3, 16, 16), 1).layer == "second"
        model.short = True
        assert cam(image(2, 3, 16, 16), 1).layer == "first"
        assert GradCAM(model)(image(2, 3, 16, 16), 1).layer == "first"

    def test_a_word_beside_the_image_that_switches_layers(self) -> None:
        class Modes(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second, self.fc = tower(3), tower(6), nn.Linear(6, 3)

            def forward(self, images: Any, mode: str) -> Any:
                maps = self.first(images)
                return self.fc((self.second(maps) if mode == "deep" else maps).mean((2, 3)))

        model, images = Modes(), image(2, 3, 16, 16)
        for mode, layer in (("deep", "second"), ("short", "first"), ("deep", "second")):
            assert GradCAM(model, masked_input="images")({"images": images, "mode": mode}, 1).layer == layer


class TestReport:
    def test_words_and_numbers(self) -> None:
        model, images = Tokens(1, 2, (32, 32)).eval(), image(1, 3, 32, 32)
        found = {each.name: each for each in GradCAM(model).layers(images)}
        assert found["norm"].finding == "tokens 4 × 4, 1 token before, 2 tokens behind"
        assert found["norm"].default
        assert found["norm"].spatial
        assert found["patches"].finding.startswith("space along axes 2, 3 (moved 0.")
        assert found["fc"].finding == ""
        assert not found["fc"].spatial

    def test_what_sees_and_what_is_used(self) -> None:
        class Beside(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.mine, self.other, self.unused, self.fc = tower(3), tower(3), tower(6), nn.Linear(12, 3)

            def forward(self, left: Any, right: Any) -> Any:
                mine, other = self.mine(left), self.other(right)
                self.unused(mine)
                return self.fc(torch.cat([mine, other], 1).mean((2, 3)))

        pair = image(1, 3, 16, 16), image(1, 3, 16, 16).flip(-1)
        found = {each.name: each for each in GradCAM(Beside(), masked_input=0).layers(pair)}
        assert found["mine"].finding.startswith("space along axes 2, 3")
        assert not found["mine"].finding.endswith("without use")
        assert found["mine"].default
        assert found["unused"].finding.endswith(", without use")
        assert found["other"].finding == "does not see the image"
        siamese = {each.name: each for each in GradCAM(Siamese(), masked_input=0).layers((image(1, 1, 24, 24),) * 2)}
        assert siamese["backbone"].default
        assert siamese["backbone"].finding.startswith("#0 space along axes 2, 3")


class TestProbe:
    @pytest.mark.parametrize(
        ("one", "two", "axis"),
        [
            ((1, 8, 4), (2, 8, 4), 0),
            ((7, 1, 4), (7, 2, 4), 1),
            ((5, 8, 4), (10, 8, 4), 0),
            ((1, 8, 4), (1, 8, 4), None),
            ((1, 8), (2, 8, 1), None),
            ((1, 1, 4), (2, 2, 4), None),
            (None, (2, 8), None),
        ],
    )
    def test_batch_axis(self, one: Any, two: Any, axis: Any) -> None:
        assert batch_axis(one, two) == axis

    @pytest.mark.parametrize(
        ("shifts", "expected", "axes"),
        [
            ([[0.0, 0.4, -0.4], [0.0, -0.4, 0.4]], (1, 2), (1, 2)),
            ([[0.4, -0.4, 0.0], [-0.4, 0.4, 0.0]], (1, 2), (0, 1)),
            ([[-0.4, 0.4, 0.0], [0.4, -0.4, 0.0]], (0, 1), (1, 0)),
            ([[0.0, 0.03, -0.03], [0.0, -0.03, 0.03]], (1, 2), (1, 2)),  # enough to confirm a structure
            ([[0.03, -0.03, 0.0], [-0.03, 0.03, 0.0]], (1, 2), None),  # and too little to overrule it
            ([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], (1, 2), None),
        ],
    )
    def test_measured_axes(self, shifts: Any, expected: Any, axes: Any) -> None:
        evidence = Evidence("layer#0", (1, 16, 16, 16), sees=True, shifts=np.array(shifts))
        assert measured_axes(evidence, expected, lambda axes: True) == axes

    @pytest.mark.parametrize(
        ("channels", "moved", "axes"),
        [
            (64, 0.2, None),  # lengths in the input's proportions are not overruled by lengths that are not
            (64, 0.4, (0, 2)),  # unless what is measured leaves no doubt
            (4, 0.4, None),  # as it does among few channels, where the centre moves by chance
        ],
    )
    def test_lengths_in_proportion_are_overruled_late(self, channels: int, moved: float, axes: Any) -> None:
        shifts = np.array([[moved, 0.01, -0.4], [-0.4, -0.01, 0.4]])
        evidence = Evidence("layer#0", (1, channels, 64, 64), sees=True, shifts=shifts)
        assert measured_axes(evidence, (1, 2), lambda axes: axes == (1, 2)) == axes

    def test_patches(self) -> None:
        from fusioncam_core.models.probe import _patches

        assert _patches([1, 13, 4], 27) == Patches(1, 10, (4, 4), (0, 1))
        assert _patches([0, 3, 8], 12) == Patches(0, 0, (4, 3), (1, 0))  # columns first
        assert _patches([2, 34, 14, 5], 50) == Patches(2, 0, (3, 4, 4), (0, 1, 2))
        assert _patches([2, 34, 14, 5], 49) is None  # the last patch would lie behind the row
        assert _patches([5, 5, 5], 12) is None
        assert _patches([0, 2, 1], 10) is None  # four of ten: queries, more likely
        assert _patches([3, 1, 4], 12) is None
        assert _patches([0, 9, 3], 20) is None  # nine is no multiple of four patches
