"""KServe v2 over HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import aiohttp
import msgspec

from serving_stack.traffic.client import Reply, gateway_says, too_late
from serving_stack.traffic.questions import Question, feedback_body, infer_body, read_answer
from serving_stack.traffic.target import ONCE_HEADER, PIN_HEADER, Target


class HttpClient:
    """As many connections as there are open requests, each used again."""

    def __init__(self, target: Target) -> None:
        self._target = target
        # Triton compresses for whoever allows it: work for both sides that a short answer does not repay.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **target.headers()}
        trust: ssl.SSLContext | bool = True
        if (certificates := target.certificates()) is not None:
            trust = ssl.create_default_context(cadata=certificates.decode("ascii", "replace"))
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ssl=trust)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=target.timeout))

    async def ask(self, question: Question, adapter: str | None) -> Reply:
        body = question.body if adapter is None else infer_body(question.text, adapter)
        try:
            async with self._session.post(self._target.infer_url, data=body, headers=self._headers) as response:
                answer = await response.read()
        except TimeoutError:
            return Reply(error=too_late(self._target))
        except (aiohttp.ClientError, OSError) as error:
            return Reply(error=type(error).__name__)
        assigned, attempts = gateway_says(response.headers)
        if response.status != 200:
            return Reply(error=f"HTTP {response.status}", assigned=assigned, attempts=attempts)
        try:
            version, label = read_answer(answer)
        except (ValueError, msgspec.DecodeError):
            return Reply(error="not an inference answer", assigned=assigned, attempts=attempts)
        return Reply(version=version, label=label, assigned=assigned, attempts=attempts)

    async def tell(self, version: str, answers: Sequence[tuple[str, str]]) -> str | None:
        headers = {**self._headers, **ONCE_HEADER, PIN_HEADER: version}
        try:
            async with self._session.post(
                self._target.feedback_url, data=feedback_body(version, answers), headers=headers
            ) as response:
                await response.read()
                return None if response.status == 200 else f"HTTP {response.status}"
        except TimeoutError:
            return too_late(self._target)
        except (aiohttp.ClientError, OSError) as error:
            return type(error).__name__

    async def close(self) -> None:
        await self._session.close()
