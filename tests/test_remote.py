"""What docs/remote.md says: Jupyter and MLflow on another machine, through ``ssh -L``."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
import websocket
from loopback import answers, ssh_server, started, tunnel, wait_for
from ruamel.yaml import YAML
from support import ROOT

COLAB = "https://colab.research.google.com"
DOCUMENTED = (ROOT / "docs" / "remote.md").read_text()


def dry_run(target):
    """What ``make`` would run for the target, in an environment that is there."""
    there = ["-o", ".venv/installed", "-o", ".venv/installed-notebooks"]
    return subprocess.run(
        ["make", "-s", "-n", *there, target], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


COMMAND = shlex.split(dry_run("notebook").replace("\\\n", ""))


def test_make_notebook_is_the_documented_command():
    assert shlex.join(COMMAND) in DOCUMENTED
    assert COMMAND[:2] == ["jupyter", "lab"]


def test_make_repro_ends_with_the_table_the_report_and_the_way_to_mlflow():
    *_, ran, table, told, compared = [line for line in dry_run("repro").replace("\\\n", "").splitlines() if line]
    assert (ran, table) == ("dvc repro", "python -m pipeline headline")
    assert "reports/report.html" in told
    assert "make ui" in told
    assert compared.startswith("python -m pipeline compare")


@pytest.fixture
def here(tmp_path):
    """The environment of a user whose home is empty; root must say that it is meant."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "jupyter_server_config.py").write_text(f"c.ServerApp.allow_root = {os.geteuid() == 0}\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "MLFLOW", "IPYTHON"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    folders = {f"JUPYTER_{name.upper()}_DIR": str(tmp_path / name) for name in ("config", "runtime", "data")}
    return {**kept, **folders, "PATH": path, "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}


def asked(port, path, method="GET", token=None, origin=COLAB):
    """The answer to the browser that shows a page of ``origin``."""
    headers = {"Origin": origin} | ({"Authorization": f"token {token}"} if token else {})
    request = urllib.request.Request(f"http://localhost:{port}{path}", method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read()), answer.headers


def executed(channel, code):
    """What ``code`` prints in the kernel at the other end of the websocket."""
    session, printed = uuid.uuid4().hex, ""
    header = {"msg_id": session, "session": session, "username": "", "msg_type": "execute_request", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    channel.send(json.dumps(message))
    while True:
        told = json.loads(channel.recv())
        if told["parent_header"].get("msg_id") != session:
            continue
        assert told["msg_type"] != "error", "\n".join(told["content"]["traceback"])
        if told["msg_type"] == "stream":
            printed += told["content"]["text"]
        if told["msg_type"] == "status" and told["content"]["execution_state"] == "idle":
            return printed


def test_jupyter_through_a_tunnel_as_colab_does_it(tmp_path, here):
    if answers(8888):
        pytest.skip("something else listens on port 8888")
    log = tmp_path / "log"
    with (
        log.open("w") as file,
        started(*COMMAND, cwd=ROOT, env=here, stdout=file, stderr=file) as server,
        tunnel(tmp_path, far=8888) as port,
    ):
        wait_for(lambda: "token=" in log.read_text() and answers(8888), server)
        token = re.search(r"token=(\w+)", log.read_text()).group(1)
        refused_without_the_token(port)
        kernel, headers = asked(port, "/api/kernels", "POST", token)
        assert headers["Access-Control-Allow-Origin"] == COLAB
        assert headers["Access-Control-Allow-Credentials"] == "true"
        address = f"ws://localhost:{port}/api/kernels/{kernel['id']}/channels"
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            websocket.create_connection(address, origin=COLAB, timeout=60)
        channel = websocket.create_connection(f"{address}?token={token}", origin=COLAB, timeout=60)
        code = "import pipeline, numpy; print(pipeline.aggregate(numpy.array([[1.], [2.], [9.]]), 1, 'median'))"
        assert executed(channel, code) == "[2.]\n"
        channel.close()


def refused_without_the_token(port):
    for method in ("GET", "POST"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            asked(port, "/api/kernels", method)


def test_mlflow_through_a_tunnel(root, here):
    if answers(5000):
        pytest.skip("something else listens on port 5000")
    recipe = dry_run("ui")
    with (
        started("sh", "-c", recipe, cwd=root, env=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
        tunnel(root, far=5000) as port,
    ):
        wait_for(lambda: answers(5000), server)
        with urllib.request.urlopen(f"http://localhost:{port}/", timeout=60) as page:
            assert "MLflow" in page.read().decode()
        found, _ = asked(port, "/api/2.0/mlflow/experiments/search?max_results=5", origin=f"http://localhost:{port}")
        assert [experiment["name"] for experiment in found["experiments"]] == ["Default"]
        telemetry, _ = asked(port, "/ajax-api/3.0/mlflow/ui-telemetry", origin=f"http://localhost:{port}")
        assert telemetry["disable_ui_telemetry"]


def test_a_run_in_tmux_outlives_the_connection(tmp_path):
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux here (apt-get install tmux)")
    (command,) = re.findall(r"^tmux new -s repro '(.+)'", DOCUMENTED, flags=re.MULTILINE)
    command = command.replace("make repro", "sleep 0.5; echo finished").replace("repro.log", f"{tmp_path}/repro.log")
    with ssh_server(tmp_path) as arguments:
        ssh = ["ssh", *map(str, arguments), f"tmux -S {tmp_path}/socket new -d -s repro {shlex.quote(command)}"]
        subprocess.run(ssh, check=True, timeout=60)
    log = tmp_path / "repro.log"
    wait_for(lambda: log.exists() and log.read_text() == "finished\n")


def test_the_skypilot_file_is_one():
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCUMENTED, flags=re.DOTALL)
    assert set(YAML(typ="safe").load(text)) == {"name", "workdir", "resources", "setup", "run"}
