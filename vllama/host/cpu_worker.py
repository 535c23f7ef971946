"""A CPU worker that really sleeps: vLLM's own answers 200 on CPU and frees nothing. Runs in the engine's process.

`--worker-cls vllama.host.cpu_worker.SleepingCPUWorker`.
"""

from vllm.v1.worker.cpu_worker import CPUWorker


class SleepingCPUWorker(CPUWorker):
    """placeholder"""
