# /// script
# requires-python = ">=3.10"
# dependencies = ["tritonclient[http]"]
# ///
"""Ask a server as users of Triton do: `triton_client.py HOST:PORT MODEL SAMPLES`; prints the largest difference."""

import sys
from importlib import import_module

import numpy as np

triton = import_module("tritonclient.http")  # has no types


def main(address: str, model: str, samples: str) -> None:
    client = triton.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    assert client.get_server_metadata()["name"] == "splitc"
    described = client.get_model_metadata(model)
    worst = 0.0
    with np.load(samples) as arrays:
        for number in range(3):
            for binary_in, binary_out in ((True, True), (False, True), (True, False)):
                inputs = []
                for entry in described["inputs"]:
                    given = triton.InferInput(entry["name"], entry["shape"], entry["datatype"])
                    given.set_data_from_numpy(arrays[f"{number}.in.{entry['name']}"], binary_data=binary_in)
                    inputs.append(given)
                names = [entry["name"] for entry in described["outputs"]]
                wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
                result = client.infer(model, inputs, outputs=wanted, timeout=10_000_000)
                for name in names:
                    want = arrays[f"{number}.out.{name}"]
                    got = result.as_numpy(name)
                    assert (got.dtype, got.shape) == (want.dtype, want.shape)
                    worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    client.close()
    sys.stdout.write(f"{worst}\n")


main(*sys.argv[1:])
