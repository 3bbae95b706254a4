"""A real S3 server in a process of its own: moto's, which keeps its objects in memory."""

import os
import subprocess
import sys
import uuid
from typing import Any

_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server:
    def __init__(self, smallest_part: int = 5 << 20) -> None:
        """`smallest_part`: bytes, below which only the last part of an upload may be."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        environment["S3_UPLOAD_PART_MIN_SIZE"] = str(smallest_part)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        line = self._process.stdout.readline()
        assert line, "the S3 server did not start"
        self.port = int(line)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, url: str | None = None) -> dict[str, str]:
        """What leads a process to it, or to `url`: the usual variables and nothing else."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "the-secret",
            "AWS_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "2",
        }

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="the-secret",
        )

    def bucket(self) -> str:
        """The name of a new one."""
        name = f"fairtune-{uuid.uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return name

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()
