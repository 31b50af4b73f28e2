"""What an evaluation is made of that needs no model: intervals and comparisons, and labels of photographs."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fusioncam_core.data.labels import read_labels
from fusioncam_core.evaluation import statistics
from fusioncam_core.evaluation.statistics import LEVEL, RESAMPLES, SEED, compare, holm, interval, p_value


class TestStatistics:
    def test_interval_by_hand(self) -> None:
        """Half zeros, half ones: the mean of n draws is binomial."""
        found = interval(np.array([0.0, 1.0] * 50))
        assert found.mean == 0.5
        assert found.n == 100
        # The 2.5 and 97.5 percentiles of a binomial with 100 draws of probability one half, over 100.
        assert found.low == pytest.approx(0.40, abs=0.011)
        assert found.high == pytest.approx(0.60, abs=0.011)

    def test_interval_covers_as_often_as_it_says(self) -> None:
        generator = np.random.default_rng(1)
        inside = [low <= 0 <= high for _, low, high, _ in (interval(generator.normal(size=40)) for _ in range(200))]
        assert 0.90 <= np.mean(inside) <= 0.98

    def test_nan_is_left_out(self) -> None:
        assert interval(np.array([np.nan, 0.25, 0.25])) == (0.25, 0.25, 0.25, 2)
        nothing = interval(np.full(3, np.nan))
        assert nothing.n == 0
        assert np.isnan(nothing.mean)

    def test_it_repeats(self) -> None:
        values = np.random.default_rng(2).random(30)
        assert interval(values) == interval(values)
        assert RESAMPLES >= 1000

    @pytest.mark.parametrize("n", [1, 2, 7, 1000])
    def test_chunks_are_what_one_draw_gives(self, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(n).normal(size=n)
        drawn = np.random.default_rng(SEED).integers(0, n, (RESAMPLES, n))
        expected = np.quantile(values[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        for at_once in (2**21, 3000, 1):
            monkeypatch.setattr(statistics, "_ends", {})
            monkeypatch.setattr(statistics, "DRAWN_AT_ONCE", at_once)
            found = interval(values)
            np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-15)

    def test_memory_does_not_grow_with_the_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statistics, "RESAMPLES", 500)
        values = np.random.default_rng(4).random(50_000)
        tracemalloc.start()
        try:
            interval(values)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 64 * 2**20, "all draws at once are 400 MB here, and 8 GB with all resamples"

    def test_equal_values_are_resampled_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        counted: list[int] = []
        original = statistics._resampled
        monkeypatch.setattr(statistics, "_ends", {})
        monkeypatch.setattr(statistics, "_resampled", lambda known: counted.append(len(known)) or original(known))
        values = np.array([0.5, np.nan, 0.25])
        assert interval(values) == interval(values.copy()) == interval(np.array([0.5, 0.25]))
        assert counted == [2]

    def test_no_more_are_remembered_than_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statistics, "_ends", {})
        monkeypatch.setattr(statistics, "KEPT", 2)
        for value in (0.1, 0.2, 0.3):
            interval(np.array([value]))
        assert len(statistics._ends) == 2

    def test_comparison(self) -> None:
        first, second = np.array([0.1, 0.5, 0.3, np.nan, 0.9]), np.array([0.2, 0.4, 0.3, 0.1, np.nan])
        lower = compare(first, second, "lower")
        assert (lower.better, lower.equal, lower.worse) == (1, 1, 1)
        assert lower.difference.mean == pytest.approx(0)
        assert lower.difference.n == 3
        higher = compare(first + 1, second, "higher")
        assert (higher.better, higher.worse) == (3, 0)
        assert higher.difference.low > 0
        # All signs of differences of 0.9, 1.1 and 1.
        assert higher.p == 2 / 8


class TestPValues:
    def test_by_hand(self) -> None:
        """Of the sums of 1, 2 and 4 with any signs, six of eight are as far from zero as 1 + 2 - 4 is."""
        assert p_value(np.array([1.0, 2.0, -4.0])) == 1
        assert p_value(np.array([1.0, -2.0, 4.0])) == 6 / 8
        assert p_value(np.array([-1.0, 2.0, 4.0])) == 4 / 8
        assert p_value(np.array([1.0, 2.0, 4.0])) == 2 / 8
        assert p_value(-np.array([1.0, 2.0, 4.0])) == 2 / 8

    def test_what_does_not_count(self) -> None:
        assert p_value(np.array([1.0, 0.0, np.nan, 2.0, 0.0, 4.0])) == 2 / 8
        assert p_value(np.zeros(5)) == 1
        assert np.isnan(p_value(np.full(3, np.nan)))
        assert np.isnan(p_value(np.zeros(0)))

    def test_rounding_decides_nothing(self) -> None:
        """Sums of tenths in another order differ in the last digit."""
        assert p_value(np.array([0.1] * 10)) == 2 / 2**10
        assert p_value(np.array([0.1, 0.2, -0.3])) == 1

    @pytest.mark.parametrize("n", [4, 9, 13])
    def test_exact_ones_agree_with_scipy(self, n: int) -> None:
        stats = pytest.importorskip("scipy.stats")
        values = np.random.default_rng(n).normal(0.3, 1, n)
        theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert p_value(values) == pytest.approx(theirs.pvalue, abs=1e-12)

    def test_of_zeros_and_ones_it_is_mcnemars(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        differences = np.repeat([1.0, -1.0, 0.0], [9, 3, 20])
        assert p_value(differences) == pytest.approx(stats.binomtest(9, 12).pvalue)

    @pytest.mark.parametrize("n", [14, 60])
    def test_drawn_ones_are_near_those_of_the_normal_distribution(self, n: int) -> None:
        stats = pytest.importorskip("scipy.stats")
        values = np.random.default_rng(n).normal(0.25, 1, n)
        scale = np.sqrt((values**2).sum())
        assert p_value(values) == pytest.approx(2 * stats.norm.sf(abs(values.sum()) / scale), abs=0.02)
        assert p_value(values) == p_value(values.copy())
        # No sign but one of 2^n, or the odd draw of the same signs among 14.
        assert p_value(values + 10) <= (1 if n > 14 else 5) / (RESAMPLES + 1)

    def test_chunks_are_what_one_draw_gives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(3).normal(0.2, 1, 30)
        expected = p_value(values)
        for at_once in (3000, 30):
            monkeypatch.setattr(statistics, "_probabilities", {})
            monkeypatch.setattr(statistics, "DRAWN_AT_ONCE", at_once)
            assert p_value(values) == expected

    def test_drawn_signs_are_summed_as_written(self) -> None:
        """The same draws, as an array of signs, and their sums as a product."""
        values = np.random.default_rng(6).normal(0.1, 1, 200)
        drawn = np.random.default_rng(SEED).integers(0, 2, (RESAMPLES, 200))
        sums = (1.0 - 2.0 * drawn) @ np.abs(values)
        beyond = (np.abs(sums) >= abs(values.sum())).sum()
        assert 0.01 < p_value(values) < 0.99
        assert p_value(values) == (beyond + 1) / (RESAMPLES + 1)

    def test_as_often_below_a_level_as_it_says(self) -> None:
        generator = np.random.default_rng(5)
        found = np.array([p_value(generator.normal(size=10)) for _ in range(400)])
        assert 0.02 <= (found < 0.05).mean() <= 0.08


class TestHolm:
    def test_by_hand(self) -> None:
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
        assert holm([0.2, 0.9, 0.6]) == pytest.approx([0.6, 1, 1])
        assert holm([0.02]) == [0.02]
        assert holm([]) == []

    def test_what_is_no_comparison_does_not_count(self) -> None:
        found = holm([np.nan, 0.01, np.nan, 0.03])
        assert found[1::2] == pytest.approx([0.02, 0.03])
        assert np.isnan(found[::2]).all()


class TestLabels:
    FILES = (Path("photographs/3/imagenet_00_243.jpg"), Path("photographs/12/imagenet_09_455.jpg"))

    def test_from_names(self) -> None:
        assert read_labels("names", self.FILES) == [243, 455]
        with pytest.raises(ValueError, match=r"no number in the name 'cat.jpg'"):
            read_labels("names", [Path("cat.jpg")])

    def test_from_folders(self) -> None:
        assert read_labels("folders", self.FILES) == [3, 12]
        named = [Path("dog/a.png"), Path("cat/b.png"), Path("dog/c.png")]
        assert read_labels("folders", named) == [1, 0, 1]
        assert read_labels("folders", named, ["bird", "dog", "cat"]) == [1, 2, 1]

    @pytest.mark.parametrize("first", ["imagenet_00_243.jpg", "imagenet_00_243", "3/imagenet_00_243.jpg"])
    def test_from_a_table(self, tmp_path: Path, first: str) -> None:
        table = tmp_path / "labels.csv"
        table.write_text(f"file,label\n{first}, bulldog\nimagenet_09_455.jpg,5\n")
        assert read_labels(str(table), self.FILES, ["cat", "bulldog"]) == [1, 5]

    def test_tables_that_do_not_say(self, tmp_path: Path) -> None:
        table = tmp_path / "labels.csv"
        table.write_text("imagenet_00_243.jpg,bulldog\n")
        with pytest.raises(ValueError, match=r"says 'bulldog' of 'imagenet_00_243.jpg': a class's number"):
            read_labels(str(table), self.FILES[:1])
        with pytest.raises(ValueError, match=r"has no rows for 'imagenet_09_455.jpg'"):
            read_labels(str(table), self.FILES[1:])
        with pytest.raises(ValueError, match="there is no file 'labels'"):
            read_labels("labels", self.FILES)
