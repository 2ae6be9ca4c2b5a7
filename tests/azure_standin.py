"""A small local stand-in for the Azure ML services that the real azureml-core client calls.

One server on loopback answers for everything: plain HTTP for the services of a workspace, and
as HTTPS proxy for the hosts with fixed names (Resource Manager, blob storage). Through the proxy
no request can leave the machine. What arrives is kept in plain lists and dictionaries.

    with AzureStandin(folder) as azure:
        azure.faults["metrics"] = "500"
        subprocess.run(..., env={**os.environ, **azure.job(folder)})
        azure.metrics["validation_mean"]  # [(step, value), ...]
"""

import base64
import datetime
import ipaddress
import json
import posixpath
import re
import socket
import ssl
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BLOB = "standin.blob.core.windows.net"
RESOURCE_MANAGER = "management.azure.com"
HOSTS = (BLOB, RESOURCE_MANAGER)
SUBSCRIPTION, EXPERIMENT, WORKSPACE_ID = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
GROUP, WORKSPACE, JOB = "group", "standin", "job-run"
SCOPE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    f"/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
)
SERVICES = {"metrics": "/metric/", "artifacts": "/artifact/", "history": "/history/"}
FAULTY = ("metrics", "artifacts", "blob", "history")


def token():
    """An unsigned token that is valid for an hour."""
    claims = {"exp": int(time.time()) + 3600, "tid": WORKSPACE_ID, "oid": EXPERIMENT}
    parts = [{"alg": "none", "typ": "JWT"}, claims, {}]
    texts = [json.dumps(part).encode() for part in parts]
    return ".".join(base64.urlsafe_b64encode(text).decode().rstrip("=") for text in texts)


def certificate(folder):
    """Make a certificate for `HOSTS` that signs itself; return the file with it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    names = [x509.DNSName(host) for host in HOSTS]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "standin.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


class AzureStandin:
    """The services of one workspace; `with` starts and stops them.

    `faults` maps a service of `FAULTY` to "refused", "hang" or a status; set it before the client's
    environment is asked for. A handler takes the request (`method`, `host`, `path`, `query`,
    `headers`, `body`, `match`) and returns a status and what to send: a JSON value, bytes or
    None; a third value may give headers.
    """

    ROUTES = (
        # sign-in and Resource Manager
        ("POST", r"/msi/token", "sign_in"),
        ("GET", r"/metadata/endpoints", "clouds"),
        ("GET", r"/subscriptions", "subscriptions"),
        ("GET", SCOPE, "workspace"),
        ("GET", r"/discovery", "discovery"),
        # run history
        ("GET", r"/history/.*/experiments/(?P<name>[^/]+)", "experiment"),
        ("POST", r"/history/.*/experiments/(?P<name>[^/]+)", "experiment"),
        ("GET", r"/history/.*/experimentids/[^/]+", "experiment"),
        ("GET", r"/history/.*/runs/(?P<run>[^/]+)/token", "new_token"),
        ("GET", r"/history/.*/runs/(?P<run>[^/]+)/metricsingest/wait", "nothing"),
        ("GET", r"/history/.*/runs/(?P<run>[^/]+)", "get_run"),
        ("PATCH", r"/history/.*/runs/(?P<run>[^/]+)", "patch_run"),
        ("POST", r"/history/.*/runs/(?P<run>[^/]+)/events", "event"),
        # metrics and files
        ("POST", r"/metric/.*/runs/(?P<run>[^/]+)/batch", "log_batch"),
        ("POST", r"/artifact/.*/batch/metadata/(?P<origin>[^/]+)/(?P<box>[^/]+)", "new_files"),
        ("GET", r"/artifact/.*/contentinfo/(?P<origin>[^/]+)/(?P<box>[^/]+)/(.*)", "list_files"),
        ("PUT", r"/files/(?P<name>.+)", "put_blob"),
        ("HEAD", r"/files/(?P<name>.+)", "head_blob"),
    )

    def __init__(self, folder):
        self.faults = {}
        self.metrics, self.images, self.artifacts = {}, {}, {}
        self.tags, self.status, self.experiments, self.runs = {}, [], [], []
        self.requests, self.unknown = [], []
        self.pem = certificate(folder)
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.routes = [
            (method, re.compile(pattern), getattr(self, name))
            for method, pattern, name in self.ROUTES
        ]

    # --- running ---------------------------------------------------------------------------

    def __enter__(self):
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.pem)
        handler = type("Handler", (_Handler,), {"azure": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.closed = socket.socket()
        self.closed.bind(("127.0.0.1", 0))  # taken but not listening: refuses connections
        self.closed_port = self.closed.getsockname()[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
        self.closed.close()

    def service_of(self, request):
        """The name of the service in `FAULTY` that a request is for, or None."""
        if request.host == BLOB:
            return "blob"
        return next((s for s, start in SERVICES.items() if request.path.startswith(start)), None)

    def answer(self, request):
        """The status, the content and the headers for a request."""
        with self.lock:
            self.requests.append((request.method, request.path))
            for method, pattern, handler in self.routes:
                request.match = pattern.fullmatch(request.path)
                if method == request.method and request.match:
                    status, content, *headers = handler(request)
                    return status, content, headers[0] if headers else {}
            self.unknown.append((request.method, request.path))
            return 404, _error("NotFound"), {}

    # --- what a client needs ---------------------------------------------------------------

    def offline(self, home):
        """Environment variables of a machine without Azure ML; `home` is an empty folder."""
        return {
            "HOME": str(home),
            "HTTPS_PROXY": self.url,
            "https_proxy": self.url,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self.pem),
        }

    def services(self):
        """Addresses of the services, as far as a fault moves them to a port that refuses."""
        names = {"metrics": "METRICS", "artifacts": "ARTIFACTS", "history": "RUN_HISTORY"}
        refused = f"http://127.0.0.1:{self.closed_port}"
        return {
            f"AZUREML_DEV_URL_{name}": refused
            for service, name in names.items()
            if self.faults.get(service) == "refused"
        }

    def job(self, home):
        """Environment variables as a job has them."""
        return {
            **self.offline(home),
            **self.services(),
            "AZUREML_RUN_ID": JOB,
            "AZUREML_ARM_SUBSCRIPTION": SUBSCRIPTION,
            "AZUREML_ARM_RESOURCEGROUP": GROUP,
            "AZUREML_ARM_WORKSPACE_NAME": WORKSPACE,
            "AZUREML_ARM_PROJECT_NAME": "tutorial",
            "AZUREML_EXPERIMENT_ID": EXPERIMENT,
            "AZUREML_WORKSPACE_ID": WORKSPACE_ID,
            "AZUREML_SERVICE_ENDPOINT": self.url,
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{self.url}/discovery",
            "AZUREML_RUN_TOKEN": token(),
        }

    def instance(self, home):
        """Environment variables as a compute instance has them; config.json goes to `home`."""
        config = {
            "subscription_id": SUBSCRIPTION,
            "resource_group": GROUP,
            "workspace_name": WORKSPACE,
        }
        (home / "config.json").write_text(json.dumps(config))
        return {
            **self.offline(home),
            **self.services(),
            "MSI_ENDPOINT": f"{self.url}/msi/token",
            "MSI_SECRET": "local",
        }

    # --- sign-in and Resource Manager ------------------------------------------------------

    def sign_in(self, request):
        resource = parse_qs(request.body.decode()).get("resource", [""])[0]
        until = str(int(time.time()) + 3600)
        made = {"access_token": token(), "token_type": "Bearer", "resource": resource}
        return 200, {**made, "expires_on": until, "expires_in": "3600"}

    def clouds(self, _):
        return 200, []

    def subscriptions(self, _):
        account = {"id": f"/subscriptions/{SUBSCRIPTION}", "subscriptionId": SUBSCRIPTION}
        return 200, {"value": [{**account, "displayName": "local", "state": "Enabled"}]}

    def workspace(self, _):
        properties = {
            "workspaceId": WORKSPACE_ID,
            "discoveryUrl": f"{self.url}/discovery",
            "provisioningState": "Succeeded",
        }
        head = {"id": SCOPE, "name": WORKSPACE, "location": "local"}
        return 200, {**head, "type": "workspaces", "properties": properties}

    def discovery(self, _):
        names = ("api", "experimentation", "history", "hyperdrive", "modelmanagement", "studio")
        return 200, dict.fromkeys(names, self.url)

    # --- run history -----------------------------------------------------------------------

    def experiment(self, request):
        name = request.match.groupdict().get("name", "tutorial")
        if name not in self.experiments:
            self.experiments.append(name)
        return 200, {"experimentId": EXPERIMENT, "name": name, "tags": {}}

    def run(self, name):
        """A run as the service describes it."""
        return {
            "runNumber": 1,
            "rootRunId": name,
            "runId": name,
            "experimentId": EXPERIMENT,
            "dataContainerId": f"dcid.{name}",
            "status": self.status[-1] if self.status else "Running",
            "tags": self.tags,
            "properties": {},
        }

    def get_run(self, request):
        return 200, self.run(request.match["run"])

    def patch_run(self, request):
        change = request.json()
        if request.match["run"] not in self.runs:
            self.runs.append(request.match["run"])
        self.tags.update(change.get("tags") or {})
        return 200, self.run(request.match["run"])

    def event(self, request):
        self.status.append(request.json()["name"].rsplit(".", 1)[1])
        return 200, None

    def new_token(self, _):
        until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        return 200, {"token": token(), "expiryTimeUtc": until.isoformat()}

    def nothing(self, _):
        return 200, None

    # --- metrics and files -----------------------------------------------------------------

    def log_batch(self, request):
        for metric in request.json()["values"]:
            name = metric["name"]
            for value in metric["value"]:
                data = value["data"][name]
                if "image" in metric["properties"]["uxMetricType"]:
                    self.images.setdefault(name, []).append(data)
                else:
                    self.metrics.setdefault(name, []).append((value.get("step"), data))
        return 200, {"errors": []}

    def place(self, origin, box, path):
        """Where a file is kept, as the service describes it."""
        address = f"https://{BLOB}"
        if self.faults.get("blob") == "refused":
            address = f"https://standin.blob.local@127.0.0.1:{self.closed_port}"
        uri = f"{address}/files/{path}?sig=local"
        return {"contentUri": uri, "origin": origin, "container": box, "path": path}

    def new_files(self, request):
        origin, box = request.match["origin"], request.match["box"]
        made, places, errors = {}, {}, {}
        for wanted in request.json()["paths"]:
            path = wanted["path"]
            name = posixpath.normpath(path)  # "./outputs/a" and "outputs/a" are one file
            if name in self.artifacts:
                errors[path] = _error("Resource Conflict: artifact already exists")
                continue
            self.artifacts[name] = None
            places[path] = self.place(origin, box, name)
            made[path] = {**places[path], "artifactId": f"{origin}/{box}/{name}"}
        return 200, {"artifacts": made, "artifactContentInformation": places, "errors": errors}

    def list_files(self, request):
        origin, box, start = request.match.groups()
        paths = [path for path in self.artifacts if path.startswith(start)]
        return 200, {"value": [self.place(origin, box, path) for path in paths]}

    def put_blob(self, request):
        self.artifacts[request.match["name"]] = request.body
        return 201, None, _blob_headers()

    def head_blob(self, request):
        content = self.artifacts.get(request.match["name"])
        if content is None:
            return 404, None
        headers = {**_blob_headers(), "Content-Length": str(len(content))}
        return 200, None, {**headers, "x-ms-blob-type": "BlockBlob"}


def _error(message):
    return {"error": {"code": "UserError", "message": message}}


def _blob_headers():
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    return {"ETag": '"0x1"', "Last-Modified": now, "x-ms-version": "2019-12-12"}


class _Handler(BaseHTTPRequestHandler):
    """Reads requests, applies faults, sends answers."""

    protocol_version = "HTTP/1.1"
    host = None

    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        host = self.path.rsplit(":", 1)[0]
        if host not in HOSTS:
            with self.azure.lock:
                self.azure.unknown.append(("CONNECT", self.path))
            self.send_error(502)
            return
        self.send_response(200)
        self.end_headers()
        try:
            self.connection = self.azure.tls.wrap_socket(self.connection, server_side=True)
        except OSError:
            self.close_connection = True
            return
        self.host = host
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except OSError:  # the client went away
            self.close_connection = True

    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(iter(self.chunk, b""))
        address = urlsplit(self.path)
        request = SimpleNamespace(
            method=self.command,
            host=self.host,
            path=unquote(address.path),
            query=parse_qs(address.query),
            headers=self.headers,
            body=body,
            json=lambda: json.loads(body),
        )
        fault = self.azure.faults.get(self.azure.service_of(request))
        if fault == "hang":
            with self.azure.lock:
                self.azure.requests.append((request.method, request.path))
            self.azure.stopped.wait()
        if fault in ("hang", "refused"):
            self.close_connection = True
            self.connection.close()
            return
        if fault:
            status, content, headers = int(fault), _error(f"injected {fault}"), {}
        else:
            status, content, headers = self.azure.answer(request)
        if content is None:
            content = b""
        elif not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers = {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def chunk(self):
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    do_GET = do_POST = do_PUT = do_PATCH = do_HEAD = do_DELETE = respond  # noqa: N815
