"""What a person can get wrong: one line on stderr, exit code 2, nothing half written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.cli.conftest import Result, environment, issun
from tests.needs import links, linux

Change = Callable[[Path], object]


def refused(result: Result, *words: str) -> None:
    assert result.code == 2, result
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err, (word, result.err)


def edit_json(name: str, **changes: object) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(content | changes), encoding="utf-8")

    return change


def edit_weights(edit: Callable[[dict[str, np.ndarray]], object]) -> Change:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors")

    return change


def truncate(name: str, size: int) -> Change:
    def change(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate(size)

    return change


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


CHECKPOINT_FAULTS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no config": (remove("config.json"), ("config.json",)),
    "config is no JSON": (truncate("config.json", 5), ("config.json",)),
    "no tokenizer": (remove("spiece.model"), ("no tokenizer", "spiece.model")),
    "damaged tokenizer": (truncate("spiece.model", 100), ("spiece.model",)),
    "no weights": (remove("model.safetensors"), ("no weights", "pytorch_model.bin")),
    "tensor missing": (
        edit_weights(lambda w: w.pop("transformer.h.0.mlp.c_fc.bias")),
        ("h.0.mlp.c_fc.bias is missing",),
    ),
    "tensor of wrong shape": (
        edit_weights(lambda w: w.update({"transformer.ln_f.bias": np.zeros(7, np.float32)})),
        ("ln_f.bias has shape [7], not [512]",),
    ),
    "unknown tensor": (
        edit_weights(lambda w: w.update({"transformer.h.0.extra": np.zeros(7, np.float32)})),
        ("h.0.extra is unknown",),
    ),
    "truncated safetensors": (
        truncate("model.safetensors", 100_000),
        ("not downloaded completely",),
    ),
    "empty safetensors": (truncate("model.safetensors", 0), ("not downloaded completely",)),
    "weights that are no numbers": (
        edit_weights(lambda w: w["transformer.h.0.mlp.c_fc.weight"].fill(np.nan)),
        ("h.0.mlp.c_fc.weight contains NaN",),
    ),
    "unknown activation": (
        edit_json("config.json", activation_function="tanh"),
        ("'tanh'", "gelu_fast"),
    ),
    "unknown architecture": (
        edit_json("config.json", model_type="mixtral"),
        ("mixtral (GPT2LMHeadModel)", "LlamaForCausalLM"),
    ),
    "quantized weights": (
        edit_json("config.json", quantization_config={"bits": 4}),
        ("quantization_config is {'bits': 4}",),
    ),
    "experts": (edit_json("config.json", num_local_experts=8), ("num_local_experts is 8",)),
    "remote code": (edit_json("config.json", auto_map={"AutoModel": "m.M"}), ("auto_map is",)),
    "cross attention": (edit_json("config.json", add_cross_attention=True), ("add_cross",)),
    "positions do not match": (edit_json("config.json", n_positions=99), ("wpe.weight", "99")),
}


@pytest.mark.sampled
@pytest.mark.parametrize("fault", CHECKPOINT_FAULTS)
def test_bad_checkpoint(fault: str, fuji: Path, tmp_path: Path) -> None:
    change, words = CHECKPOINT_FAULTS[fault]
    source, target = tmp_path / "checkpoint", tmp_path / "bundle"
    shutil.copytree(fuji.parent / "checkpoint", source)
    change(source)
    refused(issun("export", source, "-o", target), *words)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.slow
def test_source_is_not_there(tmp_path: Path) -> None:
    refused(issun("export", tmp_path / "無い", "-o", tmp_path / "b"), "無い")
    refused(issun("export", "nobody/nothing", "-o", tmp_path / "b"), "nobody/nothing")
    (tmp_path / "empty").mkdir()
    refused(issun("export", tmp_path / "empty", "-o", tmp_path / "b"), "config.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("context", "words"),
    [("5000", ("5,000 tokens", "256 tokens")), ("0", ("context is 0",))],
)
def test_contexts_out_of_range(
    fuji: Path, tmp_path: Path, context: str, words: tuple[str, ...]
) -> None:
    source = fuji.parent / "checkpoint"
    refused(issun("export", source, "-o", tmp_path / "b", "--context", context), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@links
def test_target_exists(fuji: Path, tmp_path: Path) -> None:
    source = fuji.parent / "checkpoint"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear", encoding="utf-8")
    refused(issun("export", source, "-o", tmp_path / "full"), "exists", "--force")
    refused(issun("export", source, "-o", tmp_path / "full", "--force"), "not a bundle")
    assert (tmp_path / "full" / "letter.txt").read_text(encoding="utf-8") == "dear"
    refused(issun("export", source, "-o", source, "--force"), "checkpoint")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    refused(issun("export", source, "-o", tmp_path / "link", "--force"), "symbolic link")
    refused(issun("export", source, "-o", tmp_path / "no" / "b"), "no folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "link"]


def export_after(setup: str, source: Path, target: Path) -> Result:
    """Run `issun export` in a process that has run `setup` before."""
    script = f"import sys\n{setup}\nfrom issun.cli.main import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", script, "export", source, "-o", target],
        capture_output=True,
        env=environment(),
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_no_disk_space(fuji: Path, tmp_path: Path) -> None:
    setup = (
        "import collections, shutil\n"
        "usage = collections.namedtuple('usage', 'total used free')(10**9, 10**9, 10**6)\n"
        "shutil.disk_usage = lambda path: usage\n"
    )
    result = export_after(setup, fuji.parent / "checkpoint", tmp_path / "b")
    refused(result, "MB of disk space")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_disk_fills_up_while_writing(fuji: Path, tmp_path: Path) -> None:
    setup = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    result = export_after(setup, fuji.parent / "checkpoint", tmp_path / "b")
    refused(result, "cannot be written")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int3"], ("'int3'", "float32, int8, int4")),
        (["--kv-cache", "int4"], ("'int4'", "float32, int8")),
        (["--via", "torch"], ("'torch'", "optimum")),
        (["--via", "optimum", "--precision", "int4"], ("int4",)),
        (["--template", "/no/such/file"], ("/no/such/file",)),
        (["--gptq"], ("GPTQ is for int4 and mixed precision, not for int8",)),
        (["--no-gptq"], ("GPTQ is for int4 and mixed precision, not for int8",)),
        (["--calibrate", "/no/such/file"], ("/no/such/file cannot be read",)),
        (["--calibrate", os.devnull], (f"{os.devnull} contains no text",)),
        (["--precision", "float32", "--calibrate", "x"], ("nothing to calibrate",)),
        (["--via", "optimum", "--calibrate", "x"], ("nothing to calibrate",)),
    ],
)
def test_bad_export_option(
    arguments: list[str], words: tuple[str, ...], fuji: Path, tmp_path: Path
) -> None:
    source = fuji.parent / "checkpoint"
    refused(issun("export", source, "-o", tmp_path / "b", *arguments), *words)
    assert list(tmp_path.iterdir()) == []


BUNDLE_FAULTS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no manifest": (remove("issun.json"), ("not a bundle",)),
    "damaged manifest": (truncate("issun.json", 100), ("issun.json is damaged",)),
    "newer format": (edit_json("issun.json", format=99), ("format 99", "update issun")),
    "weights truncated": (truncate("model.onnx.data", 5000), ("5,000 bytes", "damaged")),
    "weights missing": (remove("model.onnx.data"), ("model.onnx.data is missing",)),
    "graph truncated": (truncate("model.onnx", 50), ("50 bytes",)),
    "tokenizer missing": (remove("spiece.model"), ("spiece.model is missing",)),
    "path out of the folder": (
        edit_json("issun.json", graphs={"float32": "../../model.onnx"}),
        ("'../../model.onnx'", "not a file in the bundle"),
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("command", ["chat", "generate", "inspect"])
@pytest.mark.parametrize("fault", BUNDLE_FAULTS)
def test_bad_bundle(fault: str, command: str, fuji: Path, tmp_path: Path) -> None:
    change, words = BUNDLE_FAULTS[fault]
    bundle = tmp_path / "bundle"
    shutil.copytree(fuji, bundle)
    change(bundle)
    more = ["--instruction", "a"] if command == "generate" else []
    refused(issun(command, bundle, *more, stdin="山は?\n"), *words)


def test_wrong_path(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(issun("chat", tmp_path / "無い"), "no folder")
    refused(issun("chat", tmp_path / "empty"), "not a bundle")


def test_changed_weights_are_found_by_their_hash(fuji: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(fuji, bundle)
    with (bundle / "model.onnx.data").open("r+b") as file:
        file.write(b"\x01")
    result = issun("inspect", bundle, "--verify")
    refused(result, "model.onnx.data")


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--temperature", "-1", ("temperature is -1.0", "from 0 to 100")),
        ("--temperature", "nan", ("temperature is nan",)),
        ("--top-p", "0", ("top_p is 0.0", "above 0 and at most 1")),
        ("--top-p", "2", ("top_p is 2.0",)),
        ("--top-k", "-3", ("top_k is -3",)),
        ("--min-p", "1.5", ("min_p is 1.5",)),
        ("--max-new-tokens", "0", ("max_new_tokens is 0",)),
        ("--seed", "-1", ("seed is -1",)),
        ("--threads", "0", ("threads is 0",)),
        ("--kv-cache", "int8", ("no graph for the KV cache type int8", "--kv-cache int8")),
        ("--stop", "", ("stop is ('',)",)),
    ],
)
def test_bad_value(option: str, value: str, words: tuple[str, ...], fuji: Path) -> None:
    for command in (["chat"], ["generate", "--instruction", "a"]):
        refused(issun(command[0], fuji, *command[1:], option, value), *words)


def test_prompt_longer_than_the_context(fuji: Path) -> None:
    refused(issun("generate", fuji, "--instruction", "山" * 300), "tokens", "context of 256")
    refused(issun("chat", fuji, stdin="山" * 300), "more than the context of 256")
    refused(issun("chat", fuji, "--role", "山" * 300, stdin="a"), "more than the context of 256")


@pytest.mark.slow
def test_empty_instruction(fuji: Path) -> None:
    refused(issun("generate", fuji, "--instruction", ""), "instruction is empty")
    refused(issun("generate", fuji, "--instruction", " \n"), "instruction is empty")
    refused(issun("generate", fuji, "--instruction", "-", stdin=""), "instruction is empty")


def test_invalid_utf8(fuji: Path) -> None:
    bad = "山".encode()[:2]
    refused(issun("generate", fuji, "--instruction", "-", stdin=bad), "not UTF-8")
    refused(issun("generate", fuji, "--instruction", bad), "not UTF-8")
    result = issun("chat", fuji, stdin="山は?\n".encode() + bad + b"\n")
    assert (result.code, result.out) == (2, "富士山です。\n")
    assert result.err == "error: Line 2 on stdin is not UTF-8.\n"


def test_role_given_twice_or_unreadable(fuji: Path, tmp_path: Path) -> None:
    missing = tmp_path / "role.txt"
    refused(issun("chat", fuji, "--role", "a", "--role-file", missing), "not both")
    refused(issun("chat", fuji, "--role-file", missing), "role.txt")


def test_bad_saved_conversation(fuji: Path, tmp_path: Path) -> None:
    for content in ("", "[]", '{"format": 9, "role": [], "turns": []}', '{"format": 1}'):
        path = tmp_path / "saved.json"
        path.write_text(content, encoding="utf-8")
        refused(issun("chat", fuji, stdin=f"/load {path}\n"), "saved.json")


@pytest.mark.slow
def test_numbers_without_end(fuji: Path) -> None:
    huge = "9" * 400
    refused(issun("generate", fuji, "--instruction", "a", "--seed", huge), "seed is 999")
    refused(issun("chat", fuji, stdin=f"/set seed {huge}\n"), "seed is 999")
    refused(issun("chat", fuji, "--min-new-tokens", "200"), "at most max_new_tokens, which is 100")


@pytest.mark.slow
def test_paths_that_are_none(fuji: Path, tmp_path: Path) -> None:
    refused(issun("chat", fuji, stdin="/save ~nosuch/x\n"), "~nosuch/x cannot be written")
    refused(issun("chat", fuji, stdin="/load a\0b\n"), "is not a path")
    refused(issun("export", "", "-o", tmp_path / "b"), "is not a path")
    refused(issun("export", "x" * 300, "-o", tmp_path / "b"))
    refused(issun("chat", "x" * 300))


@linux
def test_closed_and_full_streams(fuji: Path) -> None:
    command = f"'{sys.executable}' -m issun.cli.main"
    for line, code, err in (
        (f"{command} chat '{fuji}' <&-", 0, ""),
        (f"{command} generate '{fuji}' --instruction a > /dev/full", 2, "error: No space left"),
        (f"{command} chat /nope 2>&-", 2, ""),
    ):
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, env=environment(), check=False
        )
        assert done.returncode == code, (line, done)
        assert done.stdout == b""
        assert done.stderr.decode().startswith(err)
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="the system has no such device")
def test_texts_that_never_end() -> None:
    refused(issun("generate", "山は?", "--json-schema", "/dev/zero"), "/dev/zero", "too large")
    refused(issun("chat", "--role-file", "/dev/zero"), "/dev/zero", "too large")
