"""A hundred thousand file names: listing, pairing and the first batch."""

import json
import os
import shutil
import subprocess
import sys

PROGRAM = """
import json, resource, sys, time

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

from pos_hf.data import DataArguments, PairedDataset, collate, load_data
before, start = peak(), time.process_time()
args = DataArguments(dataset=sys.argv[1], selection_share=0)
data = load_data(args)
pairs = PairedDataset.from_arguments(data, args, seed=0)
keys = iter(pairs.sampler(0))
batch = collate([pairs[next(keys)] for _ in range(8)])
seconds = time.process_time() - start
print(json.dumps({"rows": len(data.unlabeled), "seconds": seconds, "mb": peak() - before}))
"""


def test_a_hundred_thousand_names_take_seconds(folder):
    for shard in range(100):
        (folder / "unlabeled" / str(shard)).mkdir()
        source = shutil.copy(folder / "unlabeled" / "street_0.jpg", folder / "unlabeled" / str(shard))
        for index in range(999):
            os.link(source, folder / "unlabeled" / str(shard) / f"{index:05d}.jpg")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=True
    )
    measured = json.loads(run.stdout)
    assert measured["rows"] == 100_004
    assert measured["seconds"] < 10 and measured["mb"] < 500, measured
