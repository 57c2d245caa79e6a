"""What the key `model` may name: directories, embedded models, and models on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from drpo.errors import ConfigError
from drpo.model.source import BASES_VARIABLE, embedded_directory, find_model, find_source

pytestmark = pytest.mark.slow

COMMIT, OLDER = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, copyist: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub that holds two commits of some/model, without a network."""
    home = tmp_path / "home"
    repository = home / "hub" / "models--some--model"
    for commit in (COMMIT, OLDER):
        shutil.copytree(copyist, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "refs" / "v1").write_text(OLDER)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return home


def test_a_name_on_the_hub_is_its_newest_cached_commit_or_the_one_asked_for(cache: Path) -> None:
    source = find_source("some/model")
    assert source.revision == COMMIT and source.directory.name == COMMIT
    assert find_source("some/model@v1").revision == OLDER == find_source(f"some/model@{OLDER}").revision
    assert find_source(str(source.directory)).revision == COMMIT
    assert find_source("embedded:arithmetic").directory == embedded_directory("arithmetic")


def test_a_base_is_found_in_a_clone_or_where_the_environment_says(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BASES_VARIABLE, raising=False)
    assert embedded_directory("dense") == Path(__file__).parents[2] / "bases" / "dense"
    shutil.copytree(copyist, tmp_path / "dense")
    monkeypatch.setenv(BASES_VARIABLE, str(tmp_path))
    assert find_model("embedded:dense") == tmp_path / "dense"


def test_a_base_that_is_not_here_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BASES_VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=r"embedded:moe is not part of .* Set DRPO_BASES to .*bases\.md") as caught:
        find_model("embedded:moe")
    assert "\n" not in str(caught.value)
    assert find_model("embedded:arithmetic").parent.name == "assets"


@pytest.mark.parametrize("name", ["some/other", "some/model@v2", f"some/model@{'c' * 40}"])
def test_offline_what_is_not_cached_is_said_in_one_line(cache: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE=1 .* Run `hf download some/") as caught:
        find_model(name)
    assert "\n" not in str(caught.value)


def test_a_cached_model_that_is_not_whole_is_not_taken(cache: Path) -> None:
    snapshot = find_model("some/model")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"not \(whole\) in the cache"):
        find_model("some/model")
    assert find_model("some/model", weights=False) == snapshot
    (snapshot / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    (snapshot / "model-2.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"not \(whole\) in the cache"):
        find_model("some/model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./some/model", r"no such directory"),
        ("/some/model", r"no such directory"),
        ("models/model", r"no such directory"),
        ("some/deep/model", r"no such directory"),
        ("model", r"no such directory"),
        ("~/no such model", r"no such directory"),
        ("~nobody-here/model", r"no such directory|cannot be looked up"),
        ("some/model@", r"no such directory"),
        ("a--b/..", r"Hugging Face Hub|no such directory"),
        ("x" * 5000, r"cannot be looked up|no such directory"),
        ("", r"name of a model"),
        ("a\0b", r"name of a model"),
        ("embedded:", r"no embedded model ''"),
        ("models/file.gguf", r"is a file. Give the directory"),
    ],
)
def test_what_looks_like_a_path_is_one(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "file.gguf").write_text("GGUF")
    with pytest.raises(ConfigError, match=message):
        find_model(name)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model_index.json", r"diffusers pipeline"),
        ("x.gguf", r"GGUF"),
        ("global_step_9/config.json", r"global_step_9"),
        ("actor/huggingface/x", r"no config.json"),
    ],
)
def test_other_directories_are_named(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("{}")
    with pytest.raises(ConfigError, match=message):
        find_model(str(tmp_path))


def test_a_run_from_the_cache_records_its_commit(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "drpo",
        "train",
        "model=some/model",
        "task=copy",
        "steps=1",
        "eval_examples=2",
        "prompts_per_step=2",
        "group_size=2",
        "updates_per_step=1",
        "max_new_tokens=2",
        "device=cpu",
        "--out",
        str(run),
    ]
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env=variables | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    model = json.loads((run / "manifest.json").read_text())["model"]
    assert (model["name"], model["revision"]) == ("some/model", COMMIT)
    assert model["directory"].endswith(f"snapshots/{COMMIT}")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's protocol as a download of one public repository needs."""

    files: dict[str, bytes]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/some/remote/revision/") or path == "/api/models/some/remote":
            listed = [{"rfilename": file} for file in self.files]
            self.reply(json.dumps({"id": "some/remote", "sha": COMMIT, "siblings": listed}).encode())
        elif path.startswith("/api/models/some/remote/tree/"):
            tree = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in self.files.items()
            ]
            self.reply(json.dumps(tree).encode())
        elif path.startswith("/some/remote/resolve/") and name in self.files:
            self.reply(self.files[name])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def reply(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub(copyist: Path) -> Iterator[str]:
    Hub.files = {file.name: file.read_bytes() for file in copyist.iterdir()}
    Hub.files |= {"evil.py": b"raise SystemExit", "pytorch_model.bin": b"pickle", "README.md": b"words"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


LOOK_UP = """
import sys
from drpo.model.source import find_source
for name in sys.argv[1:]:
    try:
        source = find_source(name)
        print("FOUND", source.revision, *sorted(file.name for file in source.directory.iterdir()))
    except Exception as error:
        print(type(error).__name__, str(error))
"""


def test_a_name_that_is_not_cached_is_downloaded_without_code_or_pickles(hub: str, tmp_path: Path) -> None:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    variables |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK_UP, "some/remote", "some/nothing"],
        capture_output=True,
        text=True,
        timeout=120,
        env=variables,
    )
    found, missing = done.stdout.splitlines()
    assert found.startswith(f"FOUND {COMMIT}") and "model.safetensors" in found and "tokenizer.json" in found
    assert "evil.py" not in found and "pytorch_model.bin" not in found
    assert missing.startswith("ConfigError") and "the Hugging Face Hub does not have it" in missing
