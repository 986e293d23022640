"""Bad input: exit code 2, one sentence that names what and where, no traceback, no user's file changed."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pos_hf.cli.main import main
from tests.cli.bad_input import CASES, Case
from tests.launching import ROOT


def contents(folder: Path) -> dict[str, str]:
    """A hash of every file below a folder."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def arguments(case: Case, folder: Path) -> list[str]:
    return [part.replace("{}", str(folder)) for part in case.command.split()]


def assert_one_sentence(printed: str, words: tuple[str, ...], folder: Path) -> None:
    assert "Traceback" not in printed
    lines = [line for line in printed.splitlines() if line.strip()]
    # transformers tells what it falls back to, and shows progress
    (sentence,) = [line for line in lines if "%|" not in line and not line.startswith("[transformers]")]
    assert sentence.startswith("pos-hf")
    for word in words:
        assert word.replace("{}", str(folder)).lower() in sentence.lower()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_answered_in_one_sentence(case, folder, capsys):
    case.spoil(folder)
    before = contents(folder)
    assert main(arguments(case, folder)) == 2
    assert contents(folder) == before
    assert_one_sentence(capsys.readouterr().err, case.words, folder)


def test_the_table_has_cases_of_one_name_each():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 60


@pytest.mark.parametrize("name", ["negative learning rate", "weights that would run code"])
def test_a_process_ends_with_the_same_code_and_sentence(name, folder):
    case = next(case for case in CASES if case.name == name)
    case.spoil(folder)
    before = contents(folder)
    command = [sys.executable, "-m", "pos_hf", *arguments(case, folder)]
    result = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert contents(folder) == before
    assert_one_sentence(result.stderr, case.words, folder)


class Answers(BaseHTTPRequestHandler):
    """A Hub whose answer is the number in the repository's name: /someone/answers-401/..."""

    def do_GET(self) -> None:
        status = int(self.path.partition("answers-")[2][:3])
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        body = b"<html>no JSON</html>"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    do_HEAD = do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


HUB_COMMANDS = (
    "evaluate {} shapes",
    "train config.yaml --model {}",
    "train config.yaml --dataset_format huggingface --dataset {}",
)
RUN_ALL = """
import contextlib, io, json, sys
from pos_hf.cli.main import main
for line in sys.stdin:
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        code = main(line.split())
    print(json.dumps([code, printed.getvalue()]))
"""


def test_what_the_hub_refuses_is_said_in_one_sentence(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "cache"),
    }
    asked = [
        (command.format(f"someone/answers-{status}"), f"someone/answers-{status}")
        for command in HUB_COMMANDS
        for status in (401, 403, 404, 200)
    ]
    before = contents(folder / "data")
    result = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input="\n".join(command for command, _ in asked),
        **{"cwd": folder, "env": environment, "capture_output": True, "text": True},
    )
    server.shutdown()
    server.server_close()
    assert result.returncode == 0, result.stderr[-2000:]
    answers = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]
    for (command, word), (code, printed) in zip(asked, answers, strict=True):
        assert code == 2, command
        assert_one_sentence(printed, (word,), folder)
    assert contents(folder / "data") == before
    assert not (folder / "run").exists()
