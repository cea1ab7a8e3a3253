"""A copy of the project in a git repository of its own, and what a user does in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support import PARAMS, ROOT


class Project:
    """A copy of the project in a git repository of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env["GIT_CONFIG_GLOBAL"] = os.devnull
        self.env |= {
            f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }

    def run(self, *command, check=True):
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def start(self, *command):
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stage(self, *arguments):
        return self.run("python", "-m", "pipeline", *arguments)

    def repro(self, *arguments):
        """Return the stages that ran; ``told`` is what was printed."""
        done = self.run("dvc", "repro", *arguments)
        self.told = done.stdout + done.stderr
        return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]

    def commit(self):
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "state")

    def changed_files(self):
        return self.run("git", "status", "--porcelain").stdout

    def files(self, folder):
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted((self.folder / folder).rglob("*"))
            if path.is_file()
        }


def copy_of_the_project(folder):
    """The project's files, as git sees them, without the lock file, with the tests' params.yaml: all are staged."""
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(tracked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split():
        target = folder / name
        if name != "dvc.lock" and (ROOT / name).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    shutil.copy(PARAMS, folder / "params.yaml")
    project = Project(folder)
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    return project
