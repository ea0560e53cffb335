"""Read damaged files of every format: each gives one clear error, or an image; never a crash, hang or bomb.

``python -m benchmarks.damaged_images --files 1000`` cuts half of the files off at a random place and changes random
bytes of the others, reads each in a process with limited memory, and counts what becomes of them.
"""

from __future__ import annotations

import argparse
import collections
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

#: Longest that a small file may take, in seconds.
TIME_LIMIT_S = 20.0

#: Address space beyond what the imports take: much less than a bomb, much more than the files.
EXTRA_MEMORY = 2**30


class TooSlow(BaseException):
    """A file took too long; not an Exception, which readers would take for damage."""


@dataclass
class Count:
    """What became of the damaged files of one format."""

    error: int = 0
    same_image: int = 0
    other_image: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def damaged_copies(whole: Path, target: Path, n: int, rng: np.random.Generator) -> Iterator[str]:
    """Write `n` damaged copies of a file or folder to `target`, one after the other, and say how each was damaged."""
    for number in range(n):
        if target.is_dir():
            shutil.rmtree(target)
        if whole.is_dir():
            shutil.copytree(whole, target)
            victims = sorted(file for file in target.rglob("*") if file.is_file())
            victim = victims[int(rng.integers(len(victims)))]
            content = bytearray(victim.read_bytes())
        else:
            victim, content = target, bytearray(whole.read_bytes())
        if number % 2 == 0:
            kept = int(rng.integers(len(content)))
            victim.write_bytes(content[:kept])
            yield f"cut at {kept} of {len(content)} bytes"
            continue
        # Headers are at the start: half of the changes go there, and some are as large as numbers can be.
        n_changes = int(rng.integers(1, 9))
        reach = len(content) if rng.random() < 0.5 else min(len(content), 600)
        for place in rng.integers(0, max(reach, 1), n_changes):
            length = int(rng.choice([1, 1, 2, 4]))
            value = rng.integers(0, 256, length, dtype=np.uint8).tobytes() if rng.random() < 0.7 else b"\xff" * length
            content[place : place + length] = value
        victim.write_bytes(content)
        yield f"{n_changes} changes within {reach} bytes"


def read_damaged(path: Path, image: np.ndarray, cut: bool, lossy: bool, count: Count, how: str) -> None:
    """Read every frame of a damaged file and count what became of it."""
    from tumble.errors import TumbleError
    from tumble.micrograph import iter_micrographs

    start = time.monotonic()
    signal.alarm(int(TIME_LIMIT_S))
    try:
        found = [micrograph for micrograph, _ in zip(iter_micrographs(path), range(50), strict=False)]
    except TumbleError as error:
        count.error += 1
        text = str(error)
        if "more memory than there is" in text or "\n" in text or path.name not in text:
            count.failures.append(f"{path.name}, {how}: poor message {text[:200]!r}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        count.failures.append(f"{path.name}, {how}: {type(error).__name__}: {str(error)[:200]}")
    else:
        same = len(found) == 1 and found[0].pixels.shape == image.shape and (found[0].pixels == image).all()
        noted = any("not stored" in note or "never stored" in note for item in found for note in item.notes)
        count.same_image += bool(same)
        count.other_image += not same
        if cut and not same and not lossy and not noted:
            count.failures.append(f"{path.name}, {how}: read as another image without a word")
    finally:
        signal.alarm(0)
    count.slowest_s = max(count.slowest_s, time.monotonic() - start)


def _too_slow(number: int, frame: object) -> None:
    raise TooSlow(f"took longer than {TIME_LIMIT_S:g} s")


def limit_memory() -> None:
    """Limit the memory of this process to what it has and some more, where the system can do that."""
    status = Path("/proc/self/statm")
    if status.exists():
        pages = int(status.read_text().split()[0])
        soft = pages * resource.getpagesize() + EXTRA_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.getrlimit(resource.RLIMIT_AS)[1]))


def run(n_files: int, seed: int) -> dict[str, Count]:
    """Damage and read `n_files` files, shared among the formats."""
    from helpers_formats import IMAGE, WRITERS

    from tumble.micrograph import read_micrograph

    counts: dict[str, Count] = collections.defaultdict(Count)
    signal.signal(signal.SIGALRM, _too_slow)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "whole").mkdir()
        for name, write in WRITERS.items():
            write(base / "whole" / name)
            read_micrograph(base / "whole" / name)  # all imports are done before memory is limited
        limit_memory()
        share = -(-n_files // len(WRITERS))
        for position, name in enumerate(WRITERS):
            rng = np.random.default_rng([seed, position])
            target, lossy = base / name, name.endswith("jpg")
            for how in damaged_copies(base / "whole" / name, target, share, rng):
                # A folder has more than its pixels in it; what is cut there may be of no consequence for the image.
                cut = how.startswith("cut") and not target.is_dir()
                read_damaged(target, IMAGE, cut, lossy, counts[name], how)
    return counts


def main() -> None:
    """Print the counts, as text or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("error")
    start = time.monotonic()
    counts = run(options.files, options.seed)
    if options.json:
        print(json.dumps({name: asdict(count) for name, count in counts.items()}))
        return
    print(f"{'file':<14}{'one error':>10}{'same image':>12}{'other image':>13}{'failures':>10}{'slowest':>10}")
    for name, count in counts.items():
        numbers = f"{count.error:>10}{count.same_image:>12}{count.other_image:>13}{len(count.failures):>10}"
        print(f"{name:<14}{numbers}{count.slowest_s:>8.2f} s")
    failures = [failure for count in counts.values() for failure in count.failures]
    total = sum(count.error + count.same_image + count.other_image for count in counts.values())
    print(f"{total} outcomes in {time.monotonic() - start:.0f} s")
    print(f"{len(failures)} failures")
    for failure in failures:
        print(" ", failure)


if __name__ == "__main__":
    main()
