"""Audits a folder of pictures with Ray Data: reads them in batches, asks the service, writes a Parquet table, decides.

It writes no table over another one. Needs ray[data]==2.60.0 and requests==2.34.2.
"""

import pyarrow as pa
import ray
from audit import COLUMNS, KINDS, Service, end, flags, verdict

TABLE = pa.schema([(name, pa.string() if kind is str else pa.float64()) for name, kind in COLUMNS.items()])


class Ask:
    """One actor, with connections of its own."""

    def __init__(self, url: str, probe: str, fpr: str):
        self.service = Service(url, probe, fpr)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = self.service.rows(batch["path"].to_pylist(), batch["bytes"].to_pylist())
        return pa.Table.from_pylist(rows, schema=TABLE)


def main() -> int:
    f = flags("Ray Data")
    Service(f.url, f.probe, f.fpr).describe()
    ray.data.read_binary_files(f.images, include_paths=True, file_extensions=KINDS).map_batches(
        Ask,
        fn_constructor_args=[f.url, f.probe, f.fpr],
        batch_size=f.batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=f.workers),
        num_cpus=0.1,  # an actor waits for the service most of its time
    ).write_parquet(f.out, mode=ray.data.SaveMode.ERROR)
    rows = ray.data.read_parquet(f.out).select_columns(["path", "answer", "problem", "detail"]).take_all()
    return verdict(rows, f.max_flagged, f.max_problems)


if __name__ == "__main__":
    end(main)
