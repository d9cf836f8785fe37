"""Asks a running Afterimage service about pictures and makes rows of a table: what is the same in every engine.

It asks again whatever may pass, and calls nothing clean that was not looked at. The API key is in AFTERIMAGE_KEY.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable

import requests
from urllib3.util import Retry

KINDS = ["png", "jpg", "jpeg", "webp"]
PASSING = {408, 425, 429, 502, 503, 504}  # what another try may change
PATIENCE = 10  # tries in a row that bring no answer at all
COLUMNS = {
    "path": str,
    "sha256": str,
    "answer": str,  # flagged, not-flagged, abstain; null where there is a problem
    "reason": str,  # of an abstention
    "layer": str,
    "score": float,
    "probability": float,
    "low": float,  # of the probability's interval
    "high": float,
    "bundle": str,
    "problem": str,
    "detail": str,
}


class Service:
    """One probe of a service, over connections of its own; the key is read here, so that no engine stores it."""

    def __init__(self, url: str, probe: str, fpr: str):
        self.url, self.fpr = f"{url.rstrip('/')}/v1/probes/{probe}", fpr
        self.session = requests.Session()
        if "AFTERIMAGE_KEY" in os.environ:
            self.session.headers["Authorization"] = f"Bearer {os.environ['AFTERIMAGE_KEY']}"

    def describe(self) -> dict:
        """What is stored of the probe. Fails for a wrong key or name before a picture is read."""
        response = self.session.get(self.url, timeout=30)
        response.raise_for_status()
        return response.json()

    def rows(self, paths: list[str], images: list[bytes]) -> list[dict]:
        """A row with every column for each image, in order."""
        return [row(*each) for each in zip(paths, images, self.answers(images))]

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
            if left:  # with jitter: workers that were refused together must not come back together
                time.sleep(max(1, wait) + random.uniform(0, min(20, 0.3 * 2**idle)))
        return [lines[n] for n in range(len(images))]

    def ask(self, images: list[bytes], which: list[int], lines: dict[int, dict]) -> tuple[float, str]:
        """One request; adds to `lines` what it brings, and says how long to wait and why before the next."""
        files = [("image", (str(n), images[n])) for n in which]
        try:
            with self.session.post(
                f"{self.url}/batch?fpr={self.fpr}", files=files, stream=True, timeout=(10, 120)
            ) as response:
                if response.ok:
                    for text in response.iter_lines():
                        line = json.loads(text)
                        if line["index"] < len(which):
                            lines[which[line["index"]]] = line
                    return 0, "some came back without an answer"
                trouble = f"the service answered {response.status_code}: {response.text[:300]}"
                if response.status_code in PASSING:
                    return Retry().get_retry_after(response.raw) or 0, trouble
                if response.status_code in (413, 422):  # a batch is refused only where its first image is no use
                    lines[which[0]] = {"problem": response.json()}
                    return 0, trouble
        except (requests.RequestException, json.JSONDecodeError) as error:  # cut off on its way
            return 0, str(error)
        raise RuntimeError(f"Cannot audit: {trouble}")


def problem_of(line: dict) -> dict:
    return line.get("problem") or {}


def row(path: str, image: bytes, line: dict) -> dict:
    """A line of the service as a row of the table. Fails where the answer is about another picture."""
    made = dict.fromkeys(COLUMNS) | {"path": path, "sha256": hashlib.sha256(image).hexdigest()}
    score, problem = line.get("score"), problem_of(line)
    if not score:
        return made | {"problem": problem["type"], "detail": problem["detail"]}
    if score["image"]["sha256"] != made["sha256"]:
        raise RuntimeError(f'Cannot trust the answer for "{path}": it is about another picture')
    primary, decision, interval = score["primary"], score["decision"], score["primary"]["interval"] or {}
    return made | {
        "answer": decision["answer"],
        "reason": decision["reason"],
        "layer": primary["feature"],
        "score": primary["score"],
        "probability": primary["probability"],
        "low": interval.get("low"),
        "high": interval.get("high"),
        "bundle": score["bundle"],
    }


def flags(engine: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Audit a folder of pictures with {engine}")
    parser.add_argument("--url", default="http://127.0.0.1:8787")
    parser.add_argument("--probe", required=True)
    parser.add_argument("--images", required=True, help=f"a folder, wherever {engine} can read")
    parser.add_argument("--out", required=True, help="a new folder for the table, as Parquet")
    parser.add_argument("--fpr", default="0.01", choices=["0.01", "0.001"])
    parser.add_argument("--max-flagged", type=int, default=0)
    parser.add_argument("--max-problems", type=int, default=0)
    parser.add_argument("--batch", type=int, default=32, help="pictures of one request")
    parser.add_argument("--workers", type=int, default=2, help="requests side by side")
    return parser.parse_args()


def verdict(rows: list[dict], max_flagged: int, max_problems: int) -> int:
    """0 clean, 1 more flagged than allowed, 2 more without a look than allowed, or nothing was answered."""
    flagged, abstained = (sum(r["answer"] == kind for r in rows) for kind in ("flagged", "abstain"))
    problems = [r for r in rows if r["problem"]]
    for r in problems:
        print(f"problem  {r['path']}: {r['detail']} ({r['problem']})")
    print(
        f"{len(rows)} pictures: {flagged} flagged (at most {max_flagged} allowed), {abstained} without an answer, "
        f"{len(problems)} with a problem (at most {max_problems} allowed)"
    )
    if len(problems) > max_problems or len(rows) == len(problems) + abstained:
        return 2
    return 1 if flagged > max_flagged else 0


def end(main: Callable[[], int]) -> None:
    """Runs it and exits with its code; a fault is 2, for Python's own 1 would mean "flagged"."""
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 2
    sys.exit(code)
