"""Photographs in a bucket, explained by Ray where they are, where moto answers as S3 would: for `make test-all`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusioncam_core.scale.batches import ExplainBatches
from test_batches import PREPROCESSING, photographs, png

ray = pytest.importorskip("ray")
servers = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")
parquet = pytest.importorskip("pyarrow.parquet")
torch = pytest.importorskip("torch")

FILES = 6


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """One with photographs; what reads S3 in this process and in Ray's workers finds it."""
    server = servers.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the workers import helpers of the tests
        storage = boto3.resource("s3")
        made = storage.create_bucket(Bucket="bucket")
        noise = np.random.default_rng(0).integers(0, 256, (FILES, 14, 12, 3), dtype=np.uint8)
        for number, pixels in enumerate(noise):
            made.put_object(Key=f"photographs/{number}.png", Body=png(pixels))
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield made
        ray.shutdown()
    server.stop()


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # of what Ray Data and boto3 set themselves
def test_it_is_read_and_written_and_goes_on_by_checkpoints(bucket: Any) -> None:
    """As docs/cluster.md has it."""
    checkpoint = pytest.importorskip("ray.data.checkpoint")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = checkpoint.CheckpointConfig(
        id_column="path", checkpoint_path="s3://bucket/checkpoints", delete_checkpoint_on_success=False
    )
    own = {"factory": photographs, "preprocessing": PREPROCESSING, "image": "bytes", "id": "path", "maps": (3, 3)}
    for known in ([f"s3://bucket/photographs/{n}.png" for n in range(4)], "s3://bucket/photographs/"):
        ray.data.read_binary_files(known, include_paths=True).map_batches(
            ExplainBatches,
            fn_constructor_kwargs=own,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=0.5,
            batch_size=3,
        ).write_parquet("s3://bucket/explained/")
    context.checkpoint_config = None
    written = [each.key for each in bucket.objects.filter(Prefix="explained/") if each.key.endswith(".parquet")]
    found = [row for key in written for row in parquet.read_table(io.BytesIO(content(bucket, key))).to_pylist()]
    assert sorted(row["id"] for row in found) == [f"bucket/photographs/{n}.png" for n in range(FILES)]
    for row in found:
        image = Image.open(io.BytesIO(content(bucket, row["id"].removeprefix("bucket/"))))
        expected = photographs()(PREPROCESSING(image)[None]).numpy()
        assert (row["class"], row["error"], row["map_shape"]) == (expected.targets[0], None, [3, 3])
        assert row["score"] == pytest.approx(expected.scores[0], abs=1e-6)


def content(bucket: Any, key: str) -> bytes:
    """Of an object."""
    read: bytes = bucket.Object(key).get()["Body"].read()
    return read
