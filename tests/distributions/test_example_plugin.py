"""A separate distribution makes every command work with an architecture that hubclient does not know."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from reference import ROOT


def test_it_is_listed_without_being_imported(run, example):
    done = run("plugins", "ls", "--json", sites=[example])
    found = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}["hubclient-larch"]
    assert (found["distribution"], found["version"], found["origin"]) == ("hubclient-larch", "0.1.0", "third-party")
    assert sorted(found["claims"]) == ["gguf.larch", "hf.LarchForCausalLM", "mlx.larch"]
    assert (found["enabled"], found["state"]) == (True, "not loaded")
    assert done.stderr == ""


def test_safetensors_to_gguf_to_safetensors_is_bit_identical(run, example, larch, tensors, tmp_path):
    there = run("convert", larch, "larch.gguf", "--to", "gguf", "--type", "bf16", sites=[example])
    assert there.returncode == 0, there.stderr
    back = run("convert", "larch.gguf", "again", "--to", "safetensors", sites=[example])
    assert back.returncode == 0, back.stderr
    assert tensors(tmp_path / "again") == tensors(larch)
    for name in ("config.json", "tokenizer.json"):
        assert json.loads((tmp_path / "again" / name).read_text()) == json.loads((larch / name).read_text())


def test_the_gguf_is_laid_out_under_its_own_name(run, example, larch, tmp_path):
    from hubclient.formats.gguf import FORMAT

    assert run("convert", larch, "larch.gguf", "--to", "gguf", "--type", "f32", sites=[example]).returncode == 0
    opened = FORMAT.open(tmp_path / "larch.gguf")
    assert opened.metadata["general.architecture"].value == "larch"
    assert opened.metadata["larch.attention.head_count_kv"].value == 2
    assert opened.tensors["blk.1.attn_q.weight"].shape == (64, 64)
    assert opened.tensors["blk.1.attn_v.weight"].shape == (32, 64)
    assert opened.tensors["blk.1.ffn_up.weight"].shape == (192, 64)


def test_both_files_are_inspected_and_are_the_same_model(run, example, larch):
    assert run("convert", larch, "larch.gguf", "--to", "gguf", "--type", "bf16", sites=[example]).returncode == 0
    for source in (larch, "larch.gguf"):
        told = run("inspect", source, "--json", sites=[example])
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["architecture"] == "larch"
    checked = run("verify", "larch.gguf", "--against", larch, "--json", sites=[example])
    assert checked.returncode == 0, checked.stderr


def test_it_is_placed_by_its_own_modules(run, example, larch):
    done = run("place", larch, "--device", "cuda:0=1GiB", "--json", sites=[example])
    assert done.returncode == 0, done.stderr
    device_map = json.loads(done.stdout)["device_map"]
    assert {f"trunk.blocks.{layer}" for layer in range(3)} <= device_map.keys()


def test_without_it_or_with_it_disabled_the_answer_is_unsupported(run, example, larch):
    off, none = {"HUBCLIENT_DISABLE_PLUGINS": "hubclient-larch"}, {"HUBCLIENT_NO_THIRD_PARTY": "1"}
    for sites, environ in (([], {}), ([example], off), ([example], none)):
        done = run("convert", larch, "larch.gguf", "--to", "gguf", sites=sites, **environ)
        assert done.returncode == 3
        assert "LarchForCausalLM" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (larch.parent / "larch.gguf").exists()


def test_it_goes_to_mlx_and_back(run, example, larch, tensors, tmp_path):
    there = run("convert", larch, "larch-mlx", "--to", "mlx", sites=[example])
    assert there.returncode == 0, there.stderr
    back = run("convert", "larch-mlx", "again", "--to", "safetensors", sites=[example])
    assert back.returncode == 0, back.stderr
    assert tensors(tmp_path / "again") == tensors(larch)


def test_it_passes_the_conformance_kit_from_the_command_line(run, example):
    done = run("plugins", "test", "hubclient-larch", "--json", sites=[example])
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True), report
    assert len(report["cases"]) > 20


def test_only_plugins_with_architectures_can_be_tested(run, example):
    for name, fault in (("hubclient-larhc", "there is no plugin"), ("gguf", "declares no architectures")):
        done = run("plugins", "test", name, sites=[example])
        assert (done.returncode, fault in done.stderr) == (2, True), done.stderr


def test_its_own_test_passes(example, tmp_path):
    folder = ROOT / "examples" / "hubclient-larch"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, example])), "HUBCLIENT_CONFIG_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={folder}"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
