"""Audits a folder of pictures with Spark's mapInPandas: reads them, asks the service, writes a Parquet table, decides.

It writes no table over another one. Needs pyspark==4.3.0, pandas==2.3.3, pyarrow==26.0.1, requests==2.34.2 and Java 17.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from audit import COLUMNS, KINDS, Service, end, flags, verdict
from pyspark.sql import SparkSession

ANY_CASE = ["".join(f"[{c}{c.upper()}]" for c in kind) for kind in KINDS]
TABLE = ", ".join(f"{name} {'string' if kind is str else 'double'}" for name, kind in COLUMNS.items())


def main() -> int:
    f = flags("Spark")
    Service(f.url, f.probe, f.fpr).describe()
    spark = (
        SparkSession.builder.appName("audit")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", f.batch)  # rows of one frame below
        .getOrCreate()
    )
    spark.sparkContext.addPyFile(str(Path(__file__).with_name("audit.py")))
    url, probe, fpr = f.url, f.probe, f.fpr

    def ask(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        service = Service(url, probe, fpr)
        for frame in frames:
            yield pd.DataFrame(service.rows(list(frame["path"]), list(frame["content"])), columns=list(COLUMNS))

    pictures = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", True)
        .option("pathGlobFilter", "*.{" + ",".join(ANY_CASE) + "}")
        .load(f.images)
    )
    answers = pictures.select("path", "content").repartition(f.workers).mapInPandas(ask, TABLE)
    answers.write.parquet(f.out)  # refuses a folder that is there
    rows = spark.read.parquet(f.out).select("path", "answer", "problem", "detail").collect()
    return verdict([r.asDict() for r in rows], f.max_flagged, f.max_problems)


if __name__ == "__main__":
    end(main)
