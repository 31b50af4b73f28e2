"""Data sets of Spark, explained where they are, and jobs that it reads: for `make test-all`, where there is Java."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusioncam_core.scale.batches import ExplainBatches
from test_batches import PREPROCESSING, photographs

pytest.importorskip("pyspark")
torch = pytest.importorskip("torch")
if shutil.which("java") is None:
    pytest.skip("Spark runs on Java, which is not here", allow_module_level=True)

# Of what Spark 4.3 does with pandas 3 itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]

SIZE = (3, 4)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the workers import helpers of the tests
        made = SparkSession.builder.master("local[2]").config("spark.driver.host", "127.0.0.1")
        session = made.config("spark.ui.enabled", "false").getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five photographs, and a file that is none."""
    random = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for n in range(5):
        pixels = random.integers(0, 256, (15, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{n}.png")
    (tmp_path / "photographs" / "5.png").write_text("no photograph")
    return tmp_path / "photographs"


def test_files_of_a_data_frame(spark: Any, folder: Path, tmp_path: Path) -> None:
    """As docs/cluster.md has it."""
    from pyspark.sql.pandas.types import from_arrow_schema

    def explained(frames: Any) -> Any:
        explain = ExplainBatches(photographs, preprocessing=PREPROCESSING, image="content", id="path", maps=SIZE)
        for frame in frames:
            yield explain(frame).to_pandas()

    files = spark.read.format("binaryFile").load(folder.as_uri())
    explain = ExplainBatches(photographs, preprocessing=PREPROCESSING, image="content", id="path", maps=SIZE)
    sample = explain(files.limit(1).toPandas())
    files.mapInPandas(explained, from_arrow_schema(sample.schema)).write.parquet(str(tmp_path / "explained"))
    found = {Path(row["id"]).name: row for row in spark.read.parquet(str(tmp_path / "explained")).collect()}
    assert sorted(found) == [f"{n}.png" for n in range(6)]
    assert found["5.png"]["map"] is None
    assert "5.png" in found["5.png"]["error"]
    own = photographs()
    for n in range(5):
        row = found[f"{n}.png"]
        expected = own(PREPROCESSING(Image.open(folder / f"{n}.png"))[None]).numpy()
        assert (row["class"], row["map_shape"], row["error"]) == (expected.targets[0], list(SIZE), None)
        assert row["score"] == pytest.approx(expected.scores[0], abs=1e-6)
        assert len(row["map"]) == SIZE[0] * SIZE[1]
        assert max(row["map"]) <= 1


def test_it_reads_a_job(spark: Any, folder: Path, tmp_path: Path) -> None:
    """A question over its maps has the answer that the maps give."""
    photographs().explain_to(
        tmp_path / "out",
        folder,
        "top2",
        preprocessing=PREPROCESSING,
        maps=SIZE,
        piece=2,
        on_error="skip",
        progress=False,
    )
    spark.read.parquet(str(tmp_path / "out" / "part-*.parquet")).createOrReplaceTempView("job")
    rows = spark.sql("SELECT * FROM job WHERE error IS NULL").collect()
    assert len(rows) == 10
    asked = spark.sql(
        "SELECT class, count(*) AS maps, avg(map[8] / aggregate(map, 0f, (a, b) -> a + b)) AS corner "
        "FROM job WHERE error IS NULL AND aggregate(map, 0f, (a, b) -> a + b) > 0 GROUP BY class"
    ).collect()
    assert asked
    for row in asked:
        shares = [
            each["map"][8] / sum(each["map"]) for each in rows if each["class"] == row["class"] and sum(each["map"])
        ]
        assert row["maps"] == len(shares)
        assert row["corner"] == pytest.approx(np.mean(shares), abs=1e-6)
