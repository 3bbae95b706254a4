"""What is done to the containers. Each step says in a few words what was seen, or raises Failed."""

import itertools
import re
from typing import Any

from stack import PROJECT, Failed, Stack, wait_until
from user import RUN, RUN_SECONDS, SAVE_STEPS, STEPS, User

ADAPTER = "adapter_model.safetensors"
TOKEN = re.compile(r"ft_[0-9a-z]{26}_[A-Za-z0-9_-]{43}")
OPEN = {"/", "/docs", "/redoc", "/openapi.json", "/healthz", "/readyz"}
START_SECONDS = 300
GRACE_SECONDS = 90


class Drive:
    """The state that later steps have from earlier ones."""

    def __init__(self, stack: Stack, port: int) -> None:
        self.stack = stack
        self.port = port
        self.nobody = User(port, None)
        self.tokens: dict[str, str] = {}
        self.dataset_id = ""
        self.run_id = ""
        self.adapter = ""

    @property
    def admin(self) -> User:
        return User(self.port, self.tokens["admin"])

    @property
    def operator(self) -> User:
        return User(self.port, self.tokens["operator"])

    @property
    def viewer(self) -> User:
        return User(self.port, self.tokens["viewer"])

    # -- before there is a run -----------------------------------------------------------------

    def build(self, service: str) -> str:
        self.stack.build(service)
        return f"{self.stack.image_bytes(f'fairtune-{service}') / 1e6:.0f} MB"

    def production_refuses(self) -> str:
        said = self.stack.refused("migrate", FAIRTUNE_ENVIRONMENT="production")
        if "password" not in said:
            raise Failed(f"production was refused for another reason: {said}")
        return "refused to start"

    def first_start(self) -> str:
        self.stack.up()
        self.nobody.ready(START_SECONDS)
        return "ready"

    def inhabitants(self) -> str:
        for service in ("api", "worker"):
            if (uid := self.stack.exec(service, "id", "-u").strip()) != "10001":
                raise Failed(f"{service} runs as user {uid}")
            wait_until(
                f"{service} counts as alive",
                lambda service=service: self.alive(service),
                START_SECONDS,
            )
        finding = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
        self.stack.exec("worker", "python", "-c", finding)
        self.stack.exec("api", "python", "-c", finding.replace("is None", "is not None"))
        return "user 10001, alive; no PyTorch in the API's"

    def alive(self, service: str) -> bool:
        command = ("python", "-m", "service.ops.container_health", service)
        return self.stack.succeeds("exec", "-T", service, *command)

    def keys(self) -> str:
        if TOKEN.findall(self.stack.logs("migrate")):
            raise Failed("the log of migrate holds a key")
        (self.tokens["admin"],) = TOKEN.findall(self.stack.first_key())
        for role in ("operator", "viewer"):
            said = self.stack.exec("api", "fairtune", "keys", "create", f"a-{role}", "--role", role)
            (self.tokens[role],) = TOKEN.findall(said)
        roles = {key["role"] for key in self.admin.get("/v1/keys").json()["data"]}
        if roles != {"admin", "operator", "viewer"}:
            raise Failed(f"GET /v1/keys lists {roles}")
        return "in a file of migrate, not its log; `fairtune keys create` for operator and viewer"

    def no_key(self) -> str:
        paths = self.nobody.get("/openapi.json").json()["paths"]
        calls = [(method, path) for path, methods in paths.items() for method in methods]
        wrong = User(self.port, "ft_" + "0" * 26 + "_" + "A" * 43)
        closed = [(method, path) for method, path in calls if path not in OPEN]
        for (method, path), user in itertools.product(closed, (self.nobody, wrong)):
            status = user.answer(method, re.sub(r"\{[^}]*\}", "1", path)).status_code
            if status != 401:
                raise Failed(f"{method} {path} without a valid key: {status}")
        for path in OPEN:
            if (status := self.nobody.answer("get", path).status_code) >= 400:
                raise Failed(f"GET {path} without a key: {status}")
        return f"401 to all of {len(closed)} calls that are not open, with a wrong key too"

    def viewers_key(self) -> str:
        self.viewer.get("/v1/runs")
        for path in ("/v1/runs", "/v1/datasets", "/v1/keys"):
            if (status := self.viewer.answer("post", path, json={}).status_code) != 403:
                raise Failed(f"POST {path} with a viewer's key: {status}")
        return "GET 200, POST 403"

    def scale(self) -> str:
        self.stack.workers = 2
        self.stack.up()
        wait_until("two workers", lambda: len(self.stack.running("worker")) == 2, START_SECONDS)
        return "two worker containers"

    # -- in mid-run ----------------------------------------------------------------------------

    def begin_run(self) -> str:
        self.dataset_id = self.operator.upload()
        run = self.operator.post("/v1/runs", json=RUN | {"dataset_id": self.dataset_id})
        self.run_id = run["id"]
        run = self.trains_past_a_checkpoint(0)
        return f"training at step {run['step']}"

    def trains_past_a_checkpoint(self, step: int) -> dict[str, Any]:
        """Past `step`, and past a checkpoint that is recorded."""
        wait_until(
            f"a checkpoint past step {step}",
            lambda: max(self.viewer.checkpoints(self.run_id), default=0) > step,
            RUN_SECONDS,
        )
        return self.viewer.trains_past(self.run_id, step)

    def began(self, container: str) -> bool:
        """Whether an attempt at the run began in this container."""
        return any(
            line.get("run_id") == self.run_id and line["event"] == "attempt started"
            for line in self.stack.events(container)
        )

    def worker_killed(self) -> str:
        workers = self.stack.running("worker")
        (busy,) = [container for container in workers if self.began(container)]
        (other,) = [container for container in workers if container != busy]
        before = self.trains_past_a_checkpoint(0)
        self.stack.kill(busy)
        wait_until("the other worker has the run", lambda: self.began(other), RUN_SECONDS)
        after = self.viewer.trains_past(self.run_id, before["step"])
        if busy in self.stack.running("worker"):
            raise Failed("the killed container runs again: another need not have had the run")
        if after["attempts"] != before["attempts"] + 1:
            raise Failed(f"attempts: {before['attempts']} before, {after['attempts']} after")
        return f"killed at step {before['step']}; another container went past it"

    def restarted(self, service: str) -> str:
        before = self.viewer.trains_past(self.run_id, 0)
        self.stack.compose("restart", service)
        self.nobody.ready(START_SECONDS)
        after = self.trains_past_a_checkpoint(before["step"] + SAVE_STEPS)
        if after["attempts"] != before["attempts"]:
            raise Failed(f"the run was started anew: {after}")
        return f"at step {before['step']}; the same attempt trained on"

    def worker_stopped(self) -> str:
        (worker,) = self.stack.running("worker")
        before = self.viewer.trains_past(self.run_id, 0)
        self.stack.compose("stop", "worker", seconds=GRACE_SECONDS + 30)
        if status := self.stack.exit_status(worker):
            raise Failed(f"the worker ended with status {status}: its grace period did not do")
        after = self.viewer.run(self.run_id)
        newest = max(self.viewer.checkpoints(self.run_id))
        if after["status"] != "queued" or newest < before["step"]:
            raise Failed(f"{after['status']} with a checkpoint of {newest}, from {before['step']}")
        self.stack.up()
        self.viewer.trains_past(self.run_id, newest)
        return f"back in the queue with a checkpoint of step {newest}; went on when started again"

    # -- afterwards ----------------------------------------------------------------------------

    def finish(self) -> str:
        run = wait_until(
            "the run succeeds",
            lambda: (one := self.viewer.run(self.run_id))["status"] == "succeeded" and one,
            RUN_SECONDS,
        )
        report = self.viewer.get(f"/v1/runs/{self.run_id}/bias-report").json()
        series = self.viewer.get(f"/v1/runs/{self.run_id}/metrics", name="loss").json()["series"]
        if [point["step"] for point in series["loss"]] != list(range(1, STEPS + 1)):
            raise Failed("the loss does not have one value for each step")
        rows = report["data"]["rows"]
        return f"{STEPS} steps, each once, in {run['attempts']} attempts; report on {rows} rows"

    def download(self) -> str:
        self.adapter = self.viewer.download(self.run_id, ADAPTER)
        return "SHA-256 as stated"

    def metrics(self) -> str:
        text = self.viewer.get("/metrics").text
        takeovers = re.search(r"^fairtune_job_takeovers_total (\S+)$", text, re.MULTILINE)
        if takeovers is None or float(takeovers[1]) < 1:
            raise Failed(f"no takeover is counted: {text}")
        return f"200 with a key; {float(takeovers[1]):.0f} takeover counted"

    def kept(self, run: dict[str, Any]) -> str:
        """Compare what is there with what there was; `run` is the run as it stood."""
        self.nobody.ready(START_SECONDS)
        if self.viewer.run(self.run_id) != run:
            raise Failed("the run is not what it was")
        if self.viewer.download(self.run_id, ADAPTER) != self.adapter:
            raise Failed("the adapter is not what it was")
        if self.admin.get("/v1/datasets").json()["data"][0]["id"] != self.dataset_id:
            raise Failed("the dataset is gone")
        if TOKEN.findall(self.stack.logs("migrate")):
            raise Failed(f"{PROJECT} made another first key")
        return "run, files, dataset and keys are there; no second first key"

    def down_and_up(self) -> str:
        run = self.viewer.run(self.run_id)
        self.stack.down()
        self.stack.up()
        return self.kept(run)

    def restored(self) -> str:
        """As docs/deployment.md has it."""
        run, home = self.viewer.run(self.run_id), "--directory=/var/lib/fairtune"
        dumped = self.stack.piped(
            "exec",
            "-T",
            "postgres",
            "pg_dump",
            "--username=fairtune",
            "--format=custom",
            "fairtune",
        )
        files = self.stack.piped("exec", "-T", "api", "tar", "--create", home, "artifacts")
        self.stack.down(volumes=True)
        self.stack.compose("up", "--detach", "postgres")
        asked = ("exec", "-T", "postgres", "pg_isready", "--host=127.0.0.1")
        wait_until("PostgreSQL answers", lambda: self.stack.succeeds(*asked), START_SECONDS)
        self.stack.piped(
            *("exec", "-T", "postgres", "pg_restore", "--username=fairtune", "--dbname=fairtune"),
            sent=dumped,
        )
        untar = ("--entrypoint", "tar", "worker", "--extract", home)
        self.stack.piped("run", "--rm", "--no-deps", "-T", *untar, sent=files)
        self.stack.up()
        return self.kept(run)
