"""Explainers that make one map of a gradient map and a region map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusioncam_core.approximation.budget import require_limits
from fusioncam_core.arrays.checks import require_percentage, require_word
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.explainers.base import Explainer, Result
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.region import Budgeted, ScoreCAM
from fusioncam_core.methods.fusion import Contributions, Variant, _fusion_cam
from fusioncam_core.methods.union import _denoised_cam, _union_cam
from fusioncam_core.models.outputs import FunctionScores
from fusioncam_core.models.targets import Targets


class _Ensemble(Explainer):
    """A method made of others.

    One given by name shares this explainer's layer and one run of it; one given as an explainer sees the images itself.
    """

    needs_masks = True
    takes_budget = True
    region: Explainer

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        budget: int | None = None,
        tolerance: float | None = None,
        **keywords: Any,
    ):
        limits = require_limits(budget, tolerance)
        self._limits: dict[str, Any] = {name: value for name, value in limits._asdict().items() if value is not None}
        super().__init__(model, layer, **keywords)
        self._named: list[Explainer] = []

    def mask_count(self, batch: Batch) -> int | None:
        """The region method's."""
        return self.region.mask_count(batch) if self.region in self._named else None

    def _part(self, role: str, given: str | Explainer, **keywords: Any) -> Explainer:
        """The method for a role, "gradient" or "region", by its name (then with these keywords) or as it was given."""
        from fusioncam_core.explainers import registry

        known = registry.GRADIENT_METHODS if role == "gradient" else registry.REGION_METHODS
        if isinstance(given, str):
            if given not in known:
                raise InvalidValueError(f"{role} is one of {_listed(known)}, and {given!r} came.")
            self._named.append(known[given](self.adapter, **self._limits_of(role, known[given]), **keywords))
            return self._named[-1]
        if role == "region" and self._limits:
            raise InvalidValueError(
                f"{' and '.join(self._limits)} came with a region explainer: give them to that one."
            )
        if not isinstance(given, Explainer):
            raise InvalidTypeError(
                f"{role} is the name of a method or an explainer, and a {type(given).__qualname__} came. The "
                f"names are {_listed(known)}."
            )
        if given.name not in known:
            raise InvalidValueError(f"{role} is an explainer of {_listed(known)}, and one of {given.name!r} came.")
        self._require_the_same_model(role, given)
        return given

    def _limits_of(self, role: str, method: type[Explainer]) -> dict[str, Any]:
        """The keywords of a named method that say how far it goes."""
        if role == "gradient" or not self._limits:
            return {}
        if not issubclass(method, Budgeted):
            raise InvalidValueError(
                f"{method.title} runs all of its masks: {' and '.join(self._limits)} cannot limit it."
            )
        return self._limits

    def _require_the_same_model(self, role: str, part: Explainer) -> None:
        """Refuse a part that reads other inputs or outputs, as far as that can be told."""
        if part.adapter.namespace is not self.adapter.namespace:
            raise InvalidValueError(
                f"The model of {role} is {part.adapter.model_name}, of another framework than "
                f"{self.adapter.model_name}. Both parts explain one model."
            )
        for name in ("scores", "masked_input"):
            if getattr(part, name) != getattr(self, name):
                raise InvalidValueError(
                    f"The {role} method was made with {getattr(part, name)} and the {self.name} with "
                    f"{getattr(self, name)}: give both the same task, outputs, output and masked_input."
                )

    def _result(self, part: Explainer, batch: Batch) -> Result:
        """A part's maps (B, K, *size): of what was seen already, or by its own look at the images."""
        if part in self._named:
            return part.explain(batch)
        with part.adapter.session():
            result, batches = part.run(batch.inputs, _targets(batch), part.progress)
        for each in batches:
            batch.count(each.evaluations)
        return result


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names))


def _targets(batch: Batch) -> Targets:
    """What the batch explains, as it would be asked of another explainer."""
    if isinstance(batch.scores, FunctionScores):
        return Targets(None, several=True, functions=batch.scores.functions)
    return Targets(to_numpy(batch.targets), several=True)


class FusionCAM(_Ensemble):
    """Fusion-CAM (arXiv 2603.05386): a gradient map, denoised, and a region map, fused by their similarity.

    Args:
        model, layer, and every keyword of `Explainer`.
        gradient: a gradient method, by name or as an explainer of the same model, also for another layer; Grad-CAM in
            the paper. A name shares this explainer's layer and one run of it; an explainer sees the images itself,
            with its own layer, baseline and batch size.
        region: a region method, likewise; Score-CAM in the paper.
        percentile: values of the gradient map below it are noise; in [0, 100].
        contributions: "clipped" (negative contributions count as 0), "signed" (the published arithmetic) or
            "unnormalised" (the authors' later package, xplaincam).
        variant: "published", or "calibrated": the square root of the union map, with Score-CAM's
            `channel_weights="regression"` where the region method is "score-cam" by name. Chosen by measurement:
            docs/study.md.
        budget, tolerance: of a region method given by name, as for `ScoreCAM`: how far it goes.

    Raises:
        TypeError, ValueError: as `Explainer`, and for parts that are not of their family or of the same model.
    """

    name = "fusion-cam"
    title = "Fusion-CAM"

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        gradient: str | Explainer = "grad-cam",
        region: str | Explainer = "score-cam",
        percentile: float = 10,
        contributions: Contributions = "clipped",
        variant: Variant = "published",
        **keywords: Any,
    ):
        self.percentile = require_percentage(percentile)
        self.contributions = require_word(contributions, "contributions", Contributions)
        self.variant = require_word(variant, "variant", Variant)
        super().__init__(model, layer, **keywords)
        self.gradient = self._part("gradient", gradient)
        weighed = {"channel_weights": "regression"} if variant == "calibrated" and region == ScoreCAM.name else {}
        self.region = self._part("region", region, **weighed)
        self.needs_gradients = any(part.needs_gradients for part in self._named)

    def explain(self, batch: Batch) -> Result:
        """Steps 1 to 3 of the paper, or the calibrated union, with every stage in the parts."""
        region = self._result(self.region, batch)
        fusion = _fusion_cam(
            self._result(self.gradient, batch).maps,
            region.maps,
            batch.masked.probabilities,
            batch.masked.black_probabilities(),
            self.percentile,
            self.contributions,
            self.variant,
            len(batch.size),
            xp=batch.xp,
        )
        titles = {"denoised": f"Denoised {self.gradient.title}", "region": self.region.title}
        return Result(fusion.maps, fusion.parts, fusion.weights, titles, region.masks_run, region.uncertainty)


class UnionCAM(_Ensemble):
    """Union-CAM (doi 10.3389/fnbot.2024.1490198): a map of denoised gradients, united with a region map.

    The region map alone is the result where the union does not contribute more.

    Args:
        model, layer, and every keyword of `Explainer`.
        region: a region method, by name or as an explainer, as for `FusionCAM`; Score-CAM in the paper.
        percentile: gradients below this percentile of their channel are noise; in [0, 100].
        contributions: "clipped" (negative contributions count as 0), "signed" (the published arithmetic, which can
            invert a map) or "unnormalised" (the authors' later package, xplaincam).
        budget, tolerance: of a region method given by name, as for `ScoreCAM`: how far it goes.

    Raises:
        TypeError, ValueError: as `Explainer`, and for a part that is not a region method of the same model.
    """

    name = "union-cam"
    title = "Union-CAM"
    needs_gradients = True

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        region: str | Explainer = "score-cam",
        percentile: float = 10,
        contributions: Contributions = "clipped",
        **keywords: Any,
    ):
        self.percentile = require_percentage(percentile)
        self.contributions = require_word(contributions, "contributions", Contributions)
        super().__init__(model, layer, **keywords)
        self.region = self._part("region", region)

    def explain(self, batch: Batch) -> Result:
        """The union of both maps, or the region map, with both and the union in the parts."""
        region = self._result(self.region, batch)
        fusion = _union_cam(
            _denoised_cam(batch.activations, batch.required_gradients, self.percentile, batch.size, xp=batch.xp),
            region.maps,
            batch.masked.probabilities,
            batch.masked.black_probabilities(),
            self.contributions,
            len(batch.size),
            xp=batch.xp,
        )
        titles = {"denoised": "Denoised gradients", "region": self.region.title}
        return Result(fusion.maps, fusion.parts, fusion.weights, titles, region.masks_run, region.uncertainty)
