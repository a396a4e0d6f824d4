# ruff: noqa: T201 - a program: it prints
"""Stands for onnxruntime_perf_test: the options that splitc uses, with the same output, run by the same runtime."""

import getopt
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnx
import onnxruntime as ort


def main(words: list[str]) -> int:
    pairs, (model, result) = getopt.getopt(words, "e:m:r:x:y:o:u:p:D")
    given = dict(pairs)
    assert (given["-e"], given["-m"], given["-y"], given["-o"]) == ("cpu", "times", "1", "99")
    if (at := Path(sys.argv[0]).parent / "say").exists():  # a test wants it to fail, or to wait
        print(at.read_text(encoding="utf-8"), file=sys.stderr, flush=True)
        (at.parent / "waits").touch()
        time.sleep(float(os.environ.get("PHONE_WAITS", "0")))
        return 255
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = int(given["-x"])
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if "-D" in given else "1")
    if "-u" in given:
        options.optimized_model_filepath = given["-u"]
    if "-p" in given:
        options.enable_profiling = True
        options.profile_file_prefix = given["-p"]
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        folders = list(Path(model).parent.glob("test_data_set_*"))
        assert len(folders) == 1
        tensors = [onnx.load_tensor(path) for path in sorted(folders[0].glob("input_*.pb"))]
        feeds = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors}
        session.run(None, feeds)
        with Path(result).open("a", encoding="utf-8") as file:
            for number in range(int(given["-r"])):
                start_s = time.perf_counter()
                session.run(None, feeds)
                file.write(
                    f"{Path(model).parent.name},{time.perf_counter() - start_s:.6g},1000,50,{number}\n"
                )
    except Exception as error:  # noqa: BLE001 - as in C++: what it says, and -1
        print(error, file=sys.stderr)
        return 255
    print("Session creation time cost: 0.1 s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
