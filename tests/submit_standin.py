"""The stand-in with what jobs/submit.py needs on top: computes, snapshots, runs and their files.

A submitted run is handed to `work`, in the background as on a cluster. `execute` does what a
cluster does: it runs the command, as a job with a token, in a folder with nothing but the uploaded
files, and keeps what the command leaves in outputs/.
"""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

from azure_standin import BLOB, RESOURCE_MANAGER, SCOPE, AzureStandin

LONG_AGO = "2026-01-01T00:00:00Z"


class SubmitStandin(AzureStandin):
    """`computes` are there from the beginning; `provisioning` is how making another one ends."""

    ROUTES = (
        *AzureStandin.ROUTES,
        ("GET", rf"/rp/workspaces{SCOPE}/computes", "list_computes"),
        ("GET", rf"/rp/workspaces{SCOPE}/computes/(?P<name>[^/]+)", "get_compute"),
        ("PUT", rf"{SCOPE}/computes/(?P<name>[^/]+)", "make_compute"),
        ("GET", r"/operations/make", "operation"),
        ("GET", r"/content/v1.0/.*/snapshots/latest/metadata", "last_snapshot"),
        ("POST", r"/content/v2.0/.*/snapshots/(?P<name>[^/]+)", "new_snapshot"),
        ("POST", r"/content/v2.0/.*/snapshots/getblob", "where_to_upload"),
        ("POST", r"/execution/.*/experiments/(?P<name>[^/]+)/snapshotrun", "start_run"),
        ("GET", r"/artifact/.*/contentinfo/[^/]+/dcid\.(?P<run>[^/]+)/(?P<name>.+)", "find_output"),
        ("GET", r"/artifact/.*/artifacts/[^/]+/dcid\.(?P<run>[^/]+)", "list_outputs"),
        ("GET", r"/results/(?P<run>[^/]+)/(?P<name>.+)", "get_output"),
    )

    def __init__(self, folder, computes=("cpu-cluster",), work=None, provisioning="Succeeded"):
        super().__init__(folder)
        self.folder, self.provisioning = folder, provisioning
        self.work = work or self.execute
        self.computes = {name: self.compute(name) for name in computes}
        self.submitted = {}  # id: run
        self.made = []  # what was asked for when a compute was made

    @property
    def uploaded(self):
        """The content of what was uploaded, by name."""
        start = "snapshot/"
        files = self.artifacts.items()
        return {name[len(start) :]: data for name, data in files if name.startswith(start)}

    # --- computes --------------------------------------------------------------------------

    @staticmethod
    def compute(name, state="Succeeded"):
        scale = {"minNodeCount": 0, "maxNodeCount": 4, "nodeIdleTimeBeforeScaleDown": "PT300S"}
        size = {"vmSize": "Standard_D2s_v3", "vmPriority": "Dedicated", "subnet": None}
        properties = {
            "computeType": "AmlCompute",
            "isAttachedCompute": False,
            "description": None,
            "resourceId": None,
            "provisioningState": state,
            "provisioningErrors": None,
            "properties": {**size, "scaleSettings": scale, "currentNodeCount": 0, "errors": None},
        }
        head = {"id": name, "name": name, "location": "local", "tags": None}
        return {**head, "properties": properties}

    def list_computes(self, _):
        return 200, {"value": list(self.computes.values())}

    def get_compute(self, request):
        found = self.computes.get(request.match["name"])
        return (200, found) if found else (404, None)

    def make_compute(self, request):
        name = request.match["name"]
        self.made.append({"name": name, **request.json()["properties"]["properties"]})
        self.computes[name] = self.compute(name, self.provisioning)
        follow = {"Azure-AsyncOperation": f"https://{RESOURCE_MANAGER}/operations/make"}
        return 201, self.computes[name], follow

    def operation(self, _):
        failed = {"error": {"code": "QuotaExceeded", "message": "no cores left"}}
        made = self.provisioning == "Succeeded"
        return 200, {"status": self.provisioning, **({} if made else failed)}

    # --- snapshots -------------------------------------------------------------------------

    def discovery(self, request):
        status, addresses = super().discovery(request)
        return status, {**addresses, "execution": self.url, "projectcontent": self.url}

    def last_snapshot(self, _):
        root = {"name": "", "type": "Directory", "timestamp": LONG_AGO, "hash": "", "children": {}}
        return 200, {"id": None, "root": root}

    def where_to_upload(self, request):
        names = request.json()["FileNames"]
        address = f"https://{BLOB}/files/snapshot/"
        nodes = [{"fullName": name, "blobUri": f"{address}{name}?sig=local"} for name in names]
        return 200, {"fileNodes": nodes}

    def new_snapshot(self, _):
        return 200, None

    # --- runs ------------------------------------------------------------------------------

    def start_run(self, request):
        run = SimpleNamespace(
            id=f"run-{len(self.submitted)}",
            experiment=request.match["name"],
            config=request.json()["Configuration"],
            status="Queued",
            tags={},
            outputs={},
            files=self.uploaded,
        )
        self.submitted[run.id] = run
        threading.Thread(target=self.work, args=[run], daemon=True).start()
        return 200, {"runId": run.id}

    def run(self, name):
        run = self.submitted[name]
        return {**super().run(name), "status": run.status, "tags": run.tags}

    def patch_run(self, request):
        run = self.submitted[request.match["run"]]
        run.tags.update(request.json().get("tags") or {})
        return 200, self.run(run.id)

    def list_outputs(self, request):
        run = request.match["run"]
        return 200, {"value": [{"path": name} for name in self.submitted[run].outputs]}

    def find_output(self, request):
        run, name = request.match["run"], request.match["name"]
        if name not in self.submitted[run].outputs:
            return 404, {"error": {"code": "UserError", "message": f"no artifact {name}"}}
        address = f"https://{BLOB}/results/{run}/{name}?sig=local"
        return 200, {"container": f"dcid.{run}", "path": name, "contentUri": address}

    def get_output(self, request):
        content = self.submitted[request.match["run"]].outputs[request.match["name"]]
        last = len(content) - 1
        return 200, content, {"Content-Range": f"bytes 0-{last}/{last + 1}"}

    def execute(self, run):
        """Run the command of a run where only the uploaded files are."""
        folder = self.folder / run.id
        for name, content in run.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        run.status = "Running"
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "-c", run.config["command"]],
            cwd=folder,
            env={**self.job(self.folder), "AZUREML_RUN_ID": run.id, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        run.log = done.stdout.decode()
        files = [file for file in (folder / "outputs").rglob("*") if file.is_file()]
        run.outputs = {str(file.relative_to(folder)): file.read_bytes() for file in files}
        run.status = "Failed" if done.returncode else "Completed"
