"""What PyTorch models are told that lack inputs, are no classifiers, rule classes out, or return several outputs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from fusioncam_core import RISE, FusionCAM, GradCAM, ScoreCAM
from fusioncam_core.models.target_functions import SegmentationLogit

torch = pytest.importorskip("torch")
nn = torch.nn

from torch_by_hand import block, grad_cam, head, image, seeded  # noqa: E402

METHODS: Any = (GradCAM, ScoreCAM, FusionCAM, RISE)


def made(method: Any, model: Any, **options: Any) -> Any:
    return method(model, **options, **({"masks": 20, "batch_size": 4} if method is RISE else {}))


class Net(nn.Module):
    def __init__(self, end: Any = lambda logits: logits, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.fc, self.end = block(3, 6), head(6, classes), end

    def logits(self, images: Any) -> Any:
        return self.fc(self.conv(images).mean(dim=(2, 3)))

    def forward(self, images: Any) -> Any:
        return self.end(self.logits(images))


class TestRuledOutClasses:
    """A logit of -infinity says that a class is impossible: its probability is 0."""

    @staticmethod
    def rules_out(*classes: int) -> Any:
        mask = torch.zeros(4)
        mask[list(classes)] = -torch.inf
        return seeded(lambda: Net(lambda logits: logits + mask))

    @pytest.mark.parametrize("method", METHODS)
    def test_maps_of_the_others(self, method: Any) -> None:
        """A very negative logit, whose probability is 0 in float32, is the same."""
        images, finite = image(2, 3, 12, 12), seeded(lambda: Net(lambda logits: logits + torch.tensor([0, -1e9, 0, 0])))
        for target in (2, None):
            explanation, expected = (made(method, model)(images, target) for model in (self.rules_out(1), finite))
            torch.testing.assert_close(explanation.maps, expected.maps, atol=1e-5, rtol=0)
            torch.testing.assert_close(explanation.class_probabilities, expected.class_probabilities)
            assert explanation.class_probabilities[:, 1].tolist() == [0, 0]

    def test_by_hand(self) -> None:
        model, images = seeded(Net), image(2, 3, 12, 12)
        maps = GradCAM(self.rules_out(0, 3), "conv")(images, 2).maps
        torch.testing.assert_close(maps, grad_cam(model, model.conv, images, 2), atol=1e-5, rtol=0)
        assert GradCAM(self.rules_out(0, 3), "conv")(images).targets.max() <= 2

    def test_for_several_labels(self) -> None:
        images = image(2, 3, 12, 12)
        explanation = FusionCAM(self.rules_out(1), task="multilabel")(images, 2)
        expected = FusionCAM(seeded(Net), task="multilabel")(images, 2)
        torch.testing.assert_close(explanation.maps, expected.maps, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("targets", [1, "top4", [[0, 1], [0, 1]]])
    def test_as_targets(self, method: Any, targets: Any) -> None:
        with pytest.raises(ValueError, match="NaN or infinity in the targets' scores"):
            made(method, self.rules_out(1))(image(2, 3, 12, 12), targets)

    def test_what_is_no_logit(self) -> None:
        for value in (torch.nan, torch.inf):
            model = seeded(lambda value=value: Net(lambda logits: logits + torch.tensor([0, value, 0, 0])))
            with pytest.raises(ValueError, match="NaN or infinity in the model's outputs"):
                GradCAM(model)(image(2, 3, 12, 12), 2)
        with pytest.raises(ValueError, match="NaN or infinity in the targets' scores"):
            GradCAM(self.rules_out(0, 1, 2, 3))(image(2, 3, 12, 12))


class TwoInputs(Net):
    def forward(self, image: Any, weight: Any, scale: Any = None) -> Any:
        logits = self.logits(image) * weight
        return logits if scale is None else logits * scale


class Optional(Net):
    def forward(self, image: Any, weight: Any = None) -> Any:
        return self.logits(image) * weight.exp()


class SaysSo(Net):
    def forward(self, image: Any = None, weight: Any = None) -> Any:
        if weight is None:
            raise ValueError("You have to specify weight")
        return self.logits(image) * weight


class TextFirst(Net):
    """As CLIP: what comes first is no image."""

    def forward(self, input_ids: Any = None, pixel_values: Any = None) -> Any:
        return self.logits(pixel_values) + input_ids.sum()


class TestMissingInputs:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(
        ("kind", "said", "advice"),
        [
            (TwoInputs, r"missing 1 required positional argument: 'weight'\.", "takes image, weight, scale.*='image'"),
            (Optional, "'NoneType' object has no attribute 'exp'", "takes image, weight.*='image'"),
            (SaysSo, "You have to specify weight", "takes image, weight.*='image'"),
            (TextFirst, ".*", "takes input_ids, pixel_values.*='pixel_values'"),
        ],
    )
    def test_are_named(self, method: Any, kind: type, said: str, advice: str) -> None:
        with pytest.raises(
            ValueError, match=f"{kind.__name__} cannot run on .*: .*{said}.* Its forward {advice}"
        ) as caught:
            made(method, seeded(kind))(image(2, 3, 12, 12), 1)
        assert isinstance(caught.value.__cause__, TypeError | AttributeError | ValueError)
        with pytest.raises(ValueError, match=f"Its forward {advice}"):
            GradCAM(seeded(kind)).layers(image(1, 3, 12, 12))

    def test_what_the_sentence_advises(self) -> None:
        images, weight = image(2, 3, 12, 12), torch.ones(2, 1)
        maps = GradCAM(seeded(TwoInputs), "conv", masked_input="image")({"image": images, "weight": weight}, 1).maps
        torch.testing.assert_close(maps, GradCAM(seeded(Net), "conv")(images, 1).maps)

    def test_too_many_and_misspelt_ones(self) -> None:
        images = image(1, 3, 12, 12)
        with pytest.raises(
            ValueError, match=r"takes 2 positional arguments but 3 were given\. Its forward takes images"
        ):
            GradCAM(seeded(Net), masked_input=0)((images, images))
        with pytest.raises(ValueError, match=r"unexpected keyword argument 'img'\. Its forward takes images"):
            GradCAM(seeded(Net), masked_input="img")({"img": images})

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("error", [TypeError, AttributeError, ValueError, KeyError, IndexError, ZeroDivisionError])
    def test_faults_of_the_model_come_through(self, method: Any, error: Any) -> None:
        class Faulty(Net):
            def forward(self, image: Any, weight: Any = None, its: Any = 1, w: Any = 2) -> Any:
                raise error("a fault of the model: weights, wow")

        with pytest.raises(error, match="a fault of the model") as caught:
            made(method, seeded(Faulty))(image(1, 3, 12, 12))
        assert type(caught.value) is error


class Segments(Net):
    """Maps of classes, alone or with auxiliary ones."""

    def __init__(self, auxiliary: bool = False, last: bool = False) -> None:
        super().__init__()
        self.classifier, self.auxiliary, self.last = nn.Conv2d(6, 4, 1), auxiliary, last

    def forward(self, images: Any) -> Any:
        maps = self.classifier(self.conv(images))
        maps = maps.movedim(1, -1) if self.last else maps
        return OrderedDict(out=maps, aux=maps * 0) if self.auxiliary else maps


class Detects(Net):
    """Candidates as DETR gives them, or one mapping an image as torchvision's detectors do."""

    def __init__(self, listed: bool = False) -> None:
        super().__init__()
        self.listed = listed

    def forward(self, images: Any) -> Any:
        scores = self.logits(images)[:, None] * torch.ones(5, 1)
        boxes = scores.sigmoid()
        if not self.listed:
            return {"logits": scores, "pred_boxes": boxes}
        return [{"boxes": box, "scores": score[:, 0]} for box, score in zip(boxes, scores, strict=True)]


FUNCTIONS = r"targets=.*SegmentationLogit\(class, mask\), with channel_axis=-1.*DetectionScore\(box, class\)"


class TestOtherThanClassifiers:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("targets", [None, 1])
    def test_without_a_function(self, method: Any, targets: Any) -> None:
        images = image(1, 3, 12, 12)
        for model in (seeded(Segments), seeded(lambda: Segments(last=True)), seeded(Detects)):
            with pytest.raises(ValueError, match=rf"outputs of shape .* \(batch, classes\) was expected.*{FUNCTIONS}"):
                made(method, model)(images, targets)
        with pytest.raises(TypeError, match=rf"'out', 'aux', and none is called 'logits'.* output=\. .*{FUNCTIONS}"):
            made(method, seeded(lambda: Segments(auxiliary=True)))(images, targets)
        with pytest.raises(ValueError, match=FUNCTIONS):
            made(method, seeded(lambda: Segments(auxiliary=True)), output="out")(images, targets)
        with pytest.raises(TypeError, match=r"1 mappings? of 'boxes', 'scores', one for each image.*DetectionScore"):
            made(method, seeded(lambda: Detects(listed=True)))(images, targets)

    def test_with_one(self) -> None:
        net, images = seeded(Net), image(1, 3, 12, 12)
        plain = GradCAM(seeded(Segments), "conv")(images, SegmentationLogit(1)).maps
        for model, target in (
            (seeded(lambda: Segments(last=True)), SegmentationLogit(1, channel_axis=-1)),
            (seeded(lambda: Segments(auxiliary=True)), SegmentationLogit(1, output="out")),
        ):
            torch.testing.assert_close(GradCAM(model, "conv")(images, target).maps, plain)
        listed = GradCAM(seeded(lambda: Detects(listed=True)), "conv")
        maps = listed(images, lambda outputs: torch.stack([each["scores"].amax() for each in outputs])).maps
        torch.testing.assert_close(maps, grad_cam(net, net.conv, images, 0), atol=1e-5, rtol=0)


class Tokens(nn.Module):
    """A row of tokens, and several outputs of which none is called logits."""

    def __init__(self, end: Any) -> None:
        super().__init__()
        self.patches, self.norm, self.fc, self.end = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8), head(8, 4), end

    def forward(self, images: Any) -> Any:
        tokens = self.norm(self.patches(images).flatten(2).transpose(1, 2))
        return self.end(self.fc(tokens.mean(dim=1)))


@pytest.mark.parametrize(
    "end",
    [
        lambda logits: {"coarse": logits, "fine": logits * 2},
        lambda logits: {"heads": [logits, logits], "count": 3, "none": None},
        lambda logits: [{"scores": each, "labels": each.argmax()} for each in logits],
        lambda logits: (logits, logits.argmax(dim=1)),
    ],
)
def test_layers_are_listed_whatever_the_outputs(end: Any) -> None:
    model, images = seeded(lambda: Tokens(end)), image(2, 3, 16, 16)
    listed = {layer.name: layer.default for layer in GradCAM(model).layers(images)}
    assert listed == {"patches": False, "norm": True, "fc": False}

    def score(outputs: Any) -> Any:
        first = outputs if isinstance(outputs, dict | tuple) else torch.stack([each["scores"] for each in outputs])
        first = next(iter(first.values())) if isinstance(first, dict) else first
        first = first[0] if isinstance(first, list | tuple) else first
        return first[:, 1]

    explanation = GradCAM(model)(images, score)
    assert explanation.layer == "norm"
    expected = GradCAM(seeded(lambda: Tokens(lambda logits: logits)))(images, 1)
    np.testing.assert_allclose(explanation.maps.numpy(), expected.maps.numpy(), atol=1e-6)
