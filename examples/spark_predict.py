"""Predict the images of a folder on a Spark cluster.

    pip install inceptionnet pyspark pandas pyarrow    # and Java 17
    python examples/spark_predict.py runs/flowers flowers/ predictions/

Spark loads a classifier once in each of its Python workers, and calls it with the bytes of a batch of images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import FloatType, StringType, StructField, StructType

import inceptionnet

ROW = StructType(
    [
        StructField("class_1", StringType()),
        StructField("probability_1", FloatType()),
        StructField("error", StringType()),
    ]
)


def load(weights: str) -> Callable[[Any], dict[str, Any]]:
    """In a worker: the function that Spark calls with an array of encoded images."""
    return inceptionnet.load(weights)


def main(weights: str, images: str, out: str) -> None:
    """Write Parquet files with a row for each image."""
    spark = SparkSession.builder.appName("inceptionnet").getOrCreate()
    predict = predict_batch_udf(partial(load, weights), return_type=ROW, batch_size=64)
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(images)
    files.select("path", predict("content").alias("found")).select("path", "found.*").write.parquet(out)
    print(f"{out}: {spark.read.parquet(out).count()} rows")
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
