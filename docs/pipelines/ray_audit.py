"""Asks a running Afterimage service about every picture of a folder, with Ray Data, and writes a table of its answers.

It ends with 1 where more pictures are flagged than allowed, with 2 where more could not be answered: nothing that was
not looked at is called clean. Needs ray[data]==2.60.0 and requests==2.34.2; the API key is in AFTERIMAGE_KEY.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import time
import traceback

import pyarrow as pa
import ray
import requests
from urllib3.util import Retry

PASSING = {408, 425, 429, 502, 503, 504}  # what another try may change
PATIENCE = 10  # tries in a row that bring no answer at all
TABLE = pa.schema([
    ("path", pa.string()),
    ("sha256", pa.string()),
    ("answer", pa.string()),  # flagged, not-flagged, abstain; null where there is a problem
    ("reason", pa.string()),  # of an abstention
    ("layer", pa.string()),
    ("score", pa.float64()),
    ("probability", pa.float64()),
    ("low", pa.float64()),
    ("high", pa.float64()),
    ("bundle", pa.string()),
    ("problem", pa.string()),
    ("detail", pa.string()),
])


def session() -> requests.Session:
    """Connections that send the key; it is read where it is used, so that Ray stores it nowhere."""
    made = requests.Session()
    if "AFTERIMAGE_KEY" in os.environ:
        made.headers["Authorization"] = f"Bearer {os.environ['AFTERIMAGE_KEY']}"
    return made


class Audit:
    """One actor: pictures in, rows of the table out."""

    def __init__(self, url: str, fpr: str):
        self.url, self.session = f"{url}/batch?fpr={fpr}", session()

    def __call__(self, batch: pa.Table) -> pa.Table:
        images = batch["bytes"].to_pylist()
        rows = map(row, batch["path"].to_pylist(), images, self.answers(images))
        return pa.Table.from_pylist(list(rows), schema=TABLE)

    def answers(self, images: list[bytes]) -> list[dict]:
        """One line for each image. What may pass is asked again; fails when that brings nothing any more."""
        lines: dict[int, dict] = {}
        left, idle = list(range(len(images))), 0
        while left:
            before = len(left)
            wait, trouble = self.ask(images, left, lines)
            left = [n for n in left if n not in lines or problem_of(lines[n]).get("status") in PASSING]
            idle = idle + 1 if len(left) == before else 0
            if idle == PATIENCE:
                if any(n not in lines for n in left):
                    raise RuntimeError(f"Cannot audit {len(left)} pictures: {trouble}")
                break  # these keep a problem of their own, such as an encoder that takes too long
            if left:  # with jitter: actors that were refused together must not come back together
                time.sleep(max(1, wait) + random.uniform(0, min(20, 0.3 * 2**idle)))
        return [lines[n] for n in range(len(images))]

    def ask(self, images: list[bytes], which: list[int], lines: dict[int, dict]) -> tuple[float, str]:
        """One request; adds to `lines` what it brings, and says how long to wait and why before the next."""
        files = [("image", (str(n), images[n])) for n in which]
        try:
            with self.session.post(self.url, files=files, stream=True, timeout=(10, 120)) as response:
                if response.ok:
                    for text in response.iter_lines():
                        line = json.loads(text)
                        if line["index"] < len(which):
                            lines[which[line["index"]]] = line
                    return 0, "some came back without an answer"
                trouble = f"the service answered {response.status_code}: {response.text[:300]}"
                if response.status_code in PASSING:
                    return Retry().get_retry_after(response.raw) or 0, trouble
                if response.status_code in (413, 422):  # a whole batch is refused only where its first image is no use
                    lines[which[0]] = {"problem": response.json()}
                    return 0, trouble
        except (requests.RequestException, json.JSONDecodeError) as error:  # cut off on its way
            return 0, str(error)
        raise RuntimeError(f"Cannot audit: {trouble}")


def problem_of(line: dict) -> dict:
    return line.get("problem") or {}


def row(path: str, image: bytes, line: dict) -> dict:
    """A line of the service as a row of the table. Fails where the answer is about another picture."""
    sha256, score, problem = hashlib.sha256(image).hexdigest(), line.get("score"), problem_of(line)
    if not score:
        return {"path": path, "sha256": sha256, "problem": problem["type"], "detail": problem["detail"]}
    if score["image"]["sha256"] != sha256:
        raise RuntimeError(f'Cannot trust the answer for "{path}": it is about another picture')
    primary, decision, interval = score["primary"], score["decision"], score["primary"]["interval"] or {}
    return {
        "path": path,
        "sha256": sha256,
        "answer": decision["answer"],
        "reason": decision["reason"],
        "layer": primary["feature"],
        "score": primary["score"],
        "probability": primary["probability"],
        "low": interval.get("low"),
        "high": interval.get("high"),
        "bundle": score["bundle"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Audit a folder of pictures with Ray Data")
    parser.add_argument("--url", default="http://127.0.0.1:8787")
    parser.add_argument("--probe", required=True)
    parser.add_argument("--images", required=True, help="a folder, here or wherever Ray can read")
    parser.add_argument("--out", required=True, help="a new folder for the table, as Parquet")
    parser.add_argument("--fpr", default="0.01", choices=["0.01", "0.001"])
    parser.add_argument("--max-flagged", type=int, default=0)
    parser.add_argument("--max-problems", type=int, default=0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--actors", type=int, default=2)
    flags = parser.parse_args()

    url = f"{flags.url.rstrip('/')}/v1/probes/{flags.probe}"
    session().get(url, timeout=30).raise_for_status()  # a wrong key or name is told before anything is read
    kinds = ["png", "jpg", "jpeg", "webp"]
    pictures = ray.data.read_binary_files(flags.images, include_paths=True, file_extensions=kinds)
    pictures.map_batches(
        Audit,
        fn_constructor_args=[url, flags.fpr],
        batch_size=flags.batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=flags.actors),
        num_cpus=0.1,  # an actor waits for the service most of its time
    ).write_parquet(flags.out, mode=ray.data.SaveMode.ERROR)

    answers = ray.data.read_parquet(flags.out).select_columns(["path", "answer", "problem", "detail"]).take_all()
    flagged, abstained = (sum(a["answer"] == kind for a in answers) for kind in ("flagged", "abstain"))
    problems = [a for a in answers if a["problem"]]
    for a in problems:
        print(f"problem  {a['path']}: {a['detail']} ({a['problem']})")
    print(
        f"{len(answers)} pictures: {flagged} flagged (at most {flags.max_flagged} allowed), {abstained} without "
        f"an answer, {len(problems)} with a problem (at most {flags.max_problems} allowed)"
    )
    if len(problems) > flags.max_problems or len(answers) == len(problems) + abstained:
        return 2
    return 1 if flagged > flags.max_flagged else 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 2  # Python's own would be 1, which means "flagged" here
    sys.exit(code)
