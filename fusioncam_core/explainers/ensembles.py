"""Explainers that make one map of a gradient map and a region map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Unpack

from fusioncam_core.arrays.checks import require_percentage, require_word
from fusioncam_core.arrays.namespaces import Array, to_numpy
from fusioncam_core.arrays.words import _resize
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.explainers.base import Explainer, Family
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.masking import Masking
from fusioncam_core.explainers.options import (
    BUDGET,
    DEFAULTS,
    ENGINE_DEFAULTS,
    BudgetOptions,
    ExplainerOptions,
    limits_of,
)
from fusioncam_core.explainers.region import ScoreCAM
from fusioncam_core.explainers.registry import find_method, methods
from fusioncam_core.explainers.result import Result
from fusioncam_core.methods.form import USUAL, finished
from fusioncam_core.methods.fusion import Contributions, Fusion, Variant, _fusion_cam
from fusioncam_core.methods.union import _denoised_cam, _union_cam
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.function_scores import FunctionScores
from fusioncam_core.models.outputs import ClassScores
from fusioncam_core.models.targets import Targets

SIGNED = ("relu", "normalised")
"""What the gradient method of Fusion-CAM may be told of the form of its own map."""

FORM = (*SIGNED, "size")
"""What an ensemble does not tell its parts, whose maps are its stages."""

PartOptions = Mapping[str, Any] | None
"""Keywords of a part that is given by name."""


class _Ensemble(Masking):
    """A method made of others.

    One given by name shares this explainer's layer and one run of it, and gets its options; one given as an explainer
    sees the images itself.
    """

    family = "ensemble"
    needs_masks = True
    takes_budget = True
    option_defaults: ClassVar[ExplainerOptions] = {**DEFAULTS, "baseline": None}
    """Without a baseline the ensemble's own is "zero", and its parts have theirs."""

    region: Explainer

    def __init__(self, model: Any, layer: Any = None, **options: Unpack[BudgetOptions]):
        _, left = limits_of(type(self), options)
        self._limits: dict[str, Any] = {
            name: value for name, value in options.items() if name in BUDGET and value is not None
        }
        # What a part is told besides its own options; the rest is the ensemble's to do.
        own = (
            "progress",
            "weights_digest",
            "backend_options",
            *FORM,
            *(("baseline",) if left.get("baseline") is None else ()),
        )
        self._shared = {name: value for name, value in left.items() if name not in own}
        super().__init__(model, layer, **left)
        self._named: list[Explainer] = []

    def _require_form(self, *, several_layers: bool) -> None:
        """Refuse what cannot be fused: the stages mask the image, so they are in [0, 1] and of its size."""
        if not self.form.usual:
            raise InvalidValueError(
                f"{self.title} fuses maps in [0, 1], with which it masks the image: expected relu=True and "
                f"normalised=True, got relu={self.form.relu} and normalised={self.form.normalised}. "
                "FusionCAM(gradient_options={'relu': False}) shows its gradient map signed, as the part 'signed'; "
                "explanation.raw_range has what a map was before it was normalised."
            )
        if self.size == "layer":
            raise InvalidValueError(
                f"{self.title} fuses its maps at the input's size, and has none of the layer's: expected size='input', "
                "or one length for each axis of space, such as (56, 56)."
            )

    def _use(self, adapter: ModelAdapter) -> None:
        """Go on with another adapter of the same model; the parts that see with this explainer's eyes, too."""
        super()._use(adapter)
        for part in self._named:
            part._use(adapter)

    def mask_count(self, batch: Batch) -> int | None:
        """The region method's."""
        return self.region.mask_count(batch) if any(self.region is each for each in self._named) else None

    def _part(
        self, role: Family, given: str | Explainer | type[Explainer], options: PartOptions, **own: Any
    ) -> Explainer:
        """The method for a role, "gradient" or "region", by its name (then with these options) or as it was given."""
        if isinstance(given, Explainer):
            return self._given_part(role, given, options)
        method = self._method(role, given)
        for name in options or {}:
            if name in DEFAULTS and not (role == "gradient" and name in SIGNED):
                raise InvalidTypeError(
                    f"{name} is said to the {self.name} itself, which shares it with its parts: leave it out of "
                    f"{role}_options, or give the {role} method as an explainer of its own."
                )
        shared = {
            name: each for name, each in self._shared.items() if method.takes_engine or name not in ENGINE_DEFAULTS
        }
        part = method(self.adapter, **{**shared, **self._limits_of(role, method), **own, **(options or {})})
        self._require_stage(role, part)
        self._named.append(part)
        return part

    def _require_stage(self, role: Family, part: Explainer) -> None:
        """Refuse a part whose maps are no stage, nor a gradient map that can be shown signed beside it."""
        one_layer = part.layer_names is None or len(part.layer_names) == 1
        signed = role == "gradient" and part.size == "input" and not part.form.relu and one_layer
        if not (part.usual or signed):
            raise InvalidValueError(
                f"The {role} map is a stage of {self.title}, in [0, 1] and of the input's size: got one with "
                f"relu={part.form.relu}, normalised={part.form.normalised} and size={part.size!r}. Leave them out; the "
                "gradient method of Fusion-CAM alone, at one layer, may have relu=False: its signed map is then a part."
            )

    def _method(self, role: Family, given: str | type[Explainer]) -> type[Explainer]:
        """The class that was named, or given."""
        named = find_method(given.name if isinstance(given, type) and hasattr(given, "name") else given, role, role)
        return given if isinstance(given, type) and issubclass(given, Explainer) else named

    def _given_part(self, role: Family, part: Explainer, options: PartOptions) -> Explainer:
        if role == "region" and self._limits:
            raise InvalidValueError(
                f"{' and '.join(self._limits)} came with a region explainer: give them to that one."
            )
        if options is not None:
            raise InvalidTypeError(f"{role}_options came with a {role} explainer: give them to that one.")
        if part.family != role:
            known = ", ".join(map(repr, methods(role)))
            raise InvalidValueError(f"{role} is an explainer of {known}: got one of {part.name!r}.")
        self._require_the_same_model(role, part)
        self._require_stage(role, part)
        return part

    def _limits_of(self, role: Family, method: type[Explainer]) -> dict[str, Any]:
        """The keywords of a named method that say how far it goes."""
        if role == "gradient" or not self._limits:
            return {}
        if not method.takes_budget:
            raise InvalidValueError(
                f"{method.title} runs all of its masks: {' and '.join(self._limits)} cannot limit it."
            )
        return self._limits

    def _require_the_same_model(self, role: Family, part: Explainer) -> None:
        """Refuse a part that reads other inputs or outputs, as far as that can be told."""
        if part.adapter.namespace is not self.adapter.namespace:
            raise InvalidValueError(
                f"The model of {role} is {part.adapter.model_name}, of another framework than "
                f"{self.adapter.model_name}. Both parts explain one model."
            )
        for name in ("scores", "masked_input", "shared"):
            if getattr(part, name) != getattr(self, name):
                raise InvalidValueError(
                    f"The {role} method was made with {getattr(part, name)} and the {self.name} with "
                    f"{getattr(self, name)}: give both the same task, output_kind, output, masked_input and shared."
                )

    def _result(self, part: Explainer, batch: Batch) -> Result:
        """A part's maps (B, K, *input size): of what was seen already, or by its own look at the images."""
        if any(part is each for each in self._named):
            return part.explain(batch)
        result, batches = part.run(batch.inputs, _targets(batch), part.progress)
        for each in batches:
            batch.count(each.evaluations)
        return result

    def _fused(self, fusion: Fusion, region: Result, batch: Batch, denoised: str) -> Result:
        """The result, with map and stages as they are fused, or all of them resized; `denoised` is that one's title."""
        titles = {"denoised": denoised, "region": self.region.title}
        size, parts, maps = self.map_size(batch), fusion.parts, fusion.maps
        if size != batch.size:
            parts = {name: _resize(part, size, xp=batch.xp) for name, part in parts.items()}
            maps = _resize(maps, size, xp=batch.xp)
        return Result(maps, parts, fusion.weights, titles, region.masks_run, region.uncertainty, fusion.raw_range)


def _targets(batch: Batch) -> Targets:
    """What the batch explains, as it would be asked of another explainer."""
    scores = batch.scores
    if isinstance(scores, ClassScores):
        return Targets(to_numpy(batch.targets), several=True)
    functions = scores.of_images(int(batch.targets.shape[0]))
    return Targets(None, several=True, functions=functions, shared=isinstance(scores, FunctionScores))


class FusionCAM(_Ensemble):
    """Fusion-CAM (arXiv 2603.05386): a gradient map, denoised, and a region map, fused by their similarity.

    Args:
        model, layer, **options: as for `Explainer`.
        gradient: a gradient method, by name or class, or as an explainer of the same model, also for another layer;
            Grad-CAM in the paper. A name shares this explainer's layer and one run of it; an explainer sees the images
            itself, with its own layer, baseline and batch size.
        region: a region method, likewise; Score-CAM in the paper.
        gradient_options, region_options: keywords of a part that is given by name, such as `{"samples": 50}`. Those of
            this explainer that the part knows as well, its baseline among them, reach it anyway.
            `gradient_options={"relu": False}`, or a gradient explainer with it, adds that map with what speaks against
            the target as the part "signed"; what is fused stays the same.
        size: "input" or one length for each axis of space, to which map and stages are resized once they are fused.
            Fused maps are in [0, 1]: there is no `relu` nor `normalised` to leave out.
        percentile: values of the gradient map below it are noise; in [0, 100].
        contributions: "clipped" (negative contributions count as 0), "signed" (the published arithmetic) or
            "unnormalised" (the authors' later package, xplaincam).
        variant: "published"; "united": the union map, without the third step; or "calibrated": its square root. Both
            take Score-CAM's `channel_weights="regression"` where the region method is "score-cam" by name. By what was
            measured united is for photographs that are looked at, and calibrated for masks: docs/study.md.
        budget, tolerance: of a region method given by name, as for `ScoreCAM`: how far it goes.

    Raises:
        TypeError, ValueError: as `Explainer`, and for parts that are not of their family or of the same model.

    Examples:
        >>> import torch
        >>> from fusioncam_core import FusionCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> explanation = FusionCAM(model, "0")(strip, 0)
        >>> explanation.maps
        tensor([[[1.0000, 0.5509, 0.0000, 0.2184]]])
        >>> explanation.parts["region"]  # Score-CAM alone believes that green is red, too
        tensor([[[1.0000, 0.5000, 0.0000, 0.5730]]])
        >>> explanation.weights["weight_denoised"], explanation.weights["weight_region"]
        (tensor([0.9144]), tensor([0.0856]))
        >>> FusionCAM(model, "0", gradient="layer-cam", region="ablation-cam")(strip, 0).maps
        tensor([[[1.0000, 0.5170, 0.0000, 0.0000]]])
    """

    name = "fusion-cam"
    title = "Fusion-CAM"
    paper = "arXiv 2603.05386"
    needs_gradients = True
    takes_form = True

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        gradient: str | Explainer | type[Explainer] = "grad-cam",
        region: str | Explainer | type[Explainer] = "score-cam",
        gradient_options: PartOptions = None,
        region_options: PartOptions = None,
        percentile: float = 10,
        contributions: Contributions = "clipped",
        variant: Variant = "published",
        **options: Unpack[BudgetOptions],
    ):
        self.percentile = require_percentage(percentile)
        self.contributions = require_word(contributions, "contributions", Contributions)
        self.variant = require_word(variant, "variant", Variant)
        super().__init__(model, layer, **options)
        self.gradient = self._part("gradient", gradient, gradient_options)
        weighed = (
            {"channel_weights": "regression"} if variant != "published" and region in (ScoreCAM, ScoreCAM.name) else {}
        )
        self.region = self._part("region", region, region_options, **weighed)
        self.needs_gradients = any(part.needs_gradients for part in self._named)

    def explain(self, batch: Batch) -> Result:
        """Steps 1 to 3 of the paper, or the union of another variant, with every stage in the parts."""
        # The gradient map first: what its arithmetic leaves awake must not meet the passes that come between.
        gradient, signed = self._gradient_maps(batch)
        region = self._result(self.region, batch)
        with batch.masked.between_passes():
            fusion = _fusion_cam(
                gradient,
                region.maps,
                batch.masked.probabilities,
                batch.masked.black_probabilities(),
                self.percentile,
                self.contributions,
                self.variant,
                len(batch.size),
                xp=batch.xp,
            )
        shown = replace(fusion, parts={**fusion.parts, **signed})
        return self._fused(shown, region, batch, f"Denoised {self.gradient.title}")

    def _gradient_maps(self, batch: Batch) -> tuple[Array, dict[str, Array]]:
        """The gradient map in [0, 1], and as a part the same one signed, if that was asked for."""
        result = self._result(self.gradient, batch)
        if self.gradient.usual:
            return result.maps, {}
        if result.combined is None:
            raise InvalidValueError(
                f"{self.gradient.title} has no signed map beside its own: expected an explain that ends with "
                "self.finish. Leave relu=False out."
            )
        usual = finished(result.combined, batch.size, USUAL, xp=batch.xp).maps
        return usual, {"signed": result.maps}


class UnionCAM(_Ensemble):
    """Union-CAM (doi 10.3389/fnbot.2024.1490198): a map of denoised gradients, united with a region map.

    The region map alone is the result where the union does not contribute more.

    Args:
        model, layer, **options: as for `Explainer`.
        region: a region method, by name or as an explainer, as for `FusionCAM`; Score-CAM in the paper.
        region_options: its keywords, if it is given by name.
        size: as for `FusionCAM`; there is no `relu` nor `normalised` to leave out either.
        percentile: gradients below this percentile of their channel are noise; in [0, 100].
        contributions: "clipped" (negative contributions count as 0), "signed" (the published arithmetic, which can
            invert a map) or "unnormalised" (the authors' later package, xplaincam).
        budget, tolerance: of a region method given by name, as for `ScoreCAM`: how far it goes.

    Raises:
        TypeError, ValueError: as `Explainer`, and for a part that is not a region method of the same model.

    Examples:
        >>> import torch
        >>> from fusioncam_core import UnionCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> UnionCAM(model, "0")(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0491]]])
    """

    name = "union-cam"
    title = "Union-CAM"
    paper = "doi 10.3389/fnbot.2024.1490198"
    needs_gradients = True
    takes_form = True

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        region: str | Explainer | type[Explainer] = "score-cam",
        region_options: PartOptions = None,
        percentile: float = 10,
        contributions: Contributions = "clipped",
        **options: Unpack[BudgetOptions],
    ):
        self.percentile = require_percentage(percentile)
        self.contributions = require_word(contributions, "contributions", Contributions)
        super().__init__(model, layer, **options)
        self.region = self._part("region", region, region_options)

    def explain(self, batch: Batch) -> Result:
        """The union of both maps, or the region map, with both and the union in the parts."""
        region = self._result(self.region, batch)
        with batch.masked.between_passes():
            fusion = _union_cam(
                _denoised_cam(batch.activations, batch.required_gradients, self.percentile, batch.size, xp=batch.xp),
                region.maps,
                batch.masked.probabilities,
                batch.masked.black_probabilities(),
                self.contributions,
                len(batch.size),
                xp=batch.xp,
            )
        return self._fused(fusion, region, batch, "Denoised gradients")
